"""Everything that is stored, as (name, hash of the content)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.store import S3Store

from tests.s3.servers import Server
from tuneloom_common.objects import hash_file

FOLDER = "blobs/sha256"
Blobs = AsyncIterator[tuple[str, str]]


async def in_directory(objects: Path) -> Blobs:
    for path in (objects / FOLDER).iterdir():
        if len(path.name) == 64:
            yield path.name, hash_file(path)[0]


async def in_bucket(server: Server, bucket: str, prefix: str) -> Blobs:
    store = S3Store(
        bucket,
        prefix=prefix,
        endpoint=server.endpoint,
        region=server.region,
        virtual_hosted_style_request=False,
        access_key_id=server.one.access,
        secret_access_key=server.one.secret,
        client_options={"allow_http": True},
    )
    async for page in obstore.list(store, FOLDER):
        for each in page:
            content = await (await obstore.get_async(store, each["path"])).bytes_async()
            yield Path(each["path"]).name, hashlib.sha256(content).hexdigest()
