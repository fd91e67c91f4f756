"""Whether a store can be trusted, seen by trying: with racing writers, one of whom may win, and with permissions that
are used for more than they say."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from http.client import NOT_IMPLEMENTED
from urllib.parse import urlsplit

import obstore

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.objects.bucket import Bucket
from tuneloom_common.objects.creation import Store, by_store
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.requests import Refused, Requests

ROUNDS = 12
WRITERS = 16
"""A server that lets several win does so in every second race; twelve in a row miss it one time in some thousands."""
CONTENT = b"this"


async def require_atomic_create(store: Store, *, url: str, setting: str) -> None:
    """Raises FailedPrecondition when more or less than one of the writers of a new object is told that it won."""
    for _ in range(ROUNDS):
        name = f"probe/{secrets.token_hex(8)}"
        contents = [secrets.token_bytes(16) for _ in range(WRITERS)]
        try:
            won = await asyncio.gather(*(by_store(store, name, content) for content in contents))
            answer = await obstore.get_async(store, name)
            stored = bytes(await answer.bytes_async())
        finally:
            await _remove(store, name)
        winners = [content for content, first in zip(contents, won, strict=True) if first]
        if winners != [stored]:
            raise FailedPrecondition(
                f"object store {url} is not safe for several writers: {len(winners)} of {WRITERS} were told that they "
                f"had created the same object. Use a store whose If-None-Match is atomic, or set {setting}=database: "
                "then writers take turns by a lock of the registry's database",
                reason="STORE_NOT_ATOMIC",
            )


def binds_content(bucket: Bucket, requests: Requests) -> bool:
    """Whether a permission for one content refuses another, and refuses headers that it does not name: some servers
    obey those, and so would copy another object here, or let everybody read this one. Blocks."""
    name, source = f"probe/{secrets.token_hex(8)}", f"probe/{secrets.token_hex(8)}"
    permission = bucket.permission("PUT", name, seconds=60, sha256=hashlib.sha256(CONTENT).hexdigest())
    if permission is None:
        return False
    copy = {"x-amz-copy-source": bucket.source(source)}
    tries: list[tuple[bytes, dict[str, str]]] = [
        (b"that", {}),
        (CONTENT, {"x-amz-acl": "public-read"}),
        (b"", copy),
        (CONTENT, copy),
    ]
    try:
        bucket.put(requests, source, b"that")
        return not any(_takes(requests, permission, content, more) for content, more in tries)
    finally:
        bucket.delete(requests, name)
        bucket.delete(requests, source)


def _takes(requests: Requests, permission: Permission, content: bytes, more: Mapping[str, str]) -> bool:
    headers = {"host": urlsplit(permission.url).netloc, **permission.headers, **more}
    try:
        requests.send("PUT", lambda: (permission.url, headers), content)
    except Refused as refused:
        if refused.status == NOT_IMPLEMENTED or 0 < refused.status < 500:
            return False
        raise
    return True


async def _remove(store: Store, name: str) -> None:
    try:
        await obstore.delete_async(store, name)
    except FileNotFoundError:
        pass
