"""s3://bucket/prefix"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError

from tuneloom_common.errors import InvalidArgument, Unavailable
from tuneloom_common.objects import reading
from tuneloom_common.objects.bucket import Bucket
from tuneloom_common.objects.clients import open_client
from tuneloom_common.objects.creation import Create, by_store
from tuneloom_common.objects.downloads import FileDownload
from tuneloom_common.objects.faults import Refusal, code_in, refused, translated
from tuneloom_common.objects.identity import MARKER, new_identity
from tuneloom_common.objects.permissions import LARGEST_BYTES, Permission
from tuneloom_common.objects.probe import binds_content
from tuneloom_common.objects.progress import Progress
from tuneloom_common.objects.requests import Patience, Refused, Requests, Sink, in_thread
from tuneloom_common.objects.settings import S3Options
from tuneloom_common.objects.uploads import PART_BYTES, FileUpload

if TYPE_CHECKING:
    from obstore.store import S3Credential

CHECK_SECONDS = 5.0
SIGNED_SECONDS = 600
ABANDONED = timedelta(days=7)
KEYS_LAST = timedelta(seconds=1)
"""Then obstore asks again, and hears of a file that has changed."""
ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Where these are set, a server that is not AWS's own may know the role of this machine."""
T = TypeVar("T")


class S3:
    """A bucket, or what lies below a prefix of it."""

    def __init__(
        self,
        url: str,
        options: S3Options,
        *,
        create: Create = by_store,
        patience: Patience | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        parts = urlsplit(url)
        if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            raise InvalidArgument(f"object store URL s3://{parts.hostname or ''}…: use s3://bucket/prefix")
        self.url = url
        self.options = options
        self.expected: str | None = None
        self._create = create
        self._patience = patience or Patience()
        self._clock = clock
        self._binds: bool | None = None
        self._checked = float("-inf")
        bucket_url, prefix = options.bucket_url(parts.netloc), parts.path.strip("/")
        self._source = options.credentials()
        self.bucket = Bucket(
            bucket_url,
            name=parts.netloc,
            prefix=prefix,
            region=options.found_region,
            credentials=self._source,
            clock=clock,
        )
        self.store = open_client(
            bucket_url,
            bucket=parts.netloc,
            prefix=prefix,
            options=options,
            patience=self._patience,
            provider=self._provide if self._source.find() else None,
        )

    async def check(self) -> str | None:
        """The marker's content, None where there is none; raises with the reason why the store cannot be used."""
        if self.bucket.signer() is None:
            if self.options.found_endpoint and not any(name in os.environ for name in ROLES):
                raise refused(Refusal("NoCredentials"), url=self.url, options=self.options)
            return await self._read_marker()
        answer = await self.run(lambda requests: self.bucket.peek(requests, MARKER))
        if answer.status < 300:
            return answer.body.decode("ascii", "replace").strip()
        if (code := code_in(answer.body.decode("utf-8", "replace"))) == "NoSuchBucket":
            raise refused(Refusal(code), url=self.url, options=self.options)
        return None

    async def identity(self) -> str | None:
        return await self.check()

    async def require(self) -> None:
        """Looks again when some seconds have passed: a bucket is not unmounted between two calls."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        found = await self.check()
        if found is None or (self.expected and found != self.expected):
            setting = self.options.setting("URL")
            raise Unavailable(
                f"object store {self.url} has no {MARKER} of ours: the registry makes it when it starts with this URL "
                f"for the first time. See that {setting} is the registry's, or that the bucket was copied whole",
                reason="OBJECTS_UNKNOWN",
            )
        self._checked = time.monotonic()

    async def mark(self) -> str:
        await self._create(self.store, MARKER, new_identity().encode())
        return await self.identity() or ""

    async def used(self) -> bool:
        async for found in obstore.list(self.store, "blobs", chunk_size=1):
            return bool(found)
        return False

    async def sweep(self) -> None:
        """Drops the parts of uploads that nobody has gone on with for long: they take room and are seen nowhere."""
        if self.bucket.signer() is not None:
            before = self._clock() - ABANDONED
            await self.run(lambda requests: _drop_uploads(self.bucket, requests, before))

    async def create(self, name: str, data: bytes) -> bool:
        return await self._create(self.store, name, data)

    async def overwrite(self, name: str, data: bytes) -> None:
        await obstore.put_async(self.store, name, data, use_multipart=False)

    def stream(self, name: str) -> AsyncIterator[bytes]:
        return reading.in_ranges(self.store, name)

    async def upload(self, path: Path, name: str, *, sha256: str, size: int) -> None:
        if size <= PART_BYTES:
            data = await asyncio.to_thread(path.read_bytes)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise OSError(f"{path} changed while it was uploaded")
            await obstore.put_async(self.store, name, data, use_multipart=False)
            return
        if self.bucket.signer() is None:  # the machine's role: obstore can sign, and cannot resume
            await obstore.put_async(self.store, name, path, chunk_size=PART_BYTES)
            return
        with Progress(f"uploading {name} to {self.url}", size) as progress:
            upload = FileUpload(self.bucket, name, path, size, on_bytes=progress.add)
            await self.run(upload.run)

    async def download(self, name: str, target: Path, *, sha256: str, size: int) -> bool | None:
        if size <= PART_BYTES:
            return None
        if (await obstore.head_async(self.store, name))["size"] != size:
            return False
        with Progress(f"downloading {name} from {self.url}", size) as progress:
            download = FileDownload(self._ranges_of(name), target, sha256, size, on_bytes=progress.add)
            return await self.run(download.run)

    async def permit_upload(self, name: str, *, sha256: str, size: int, seconds: int) -> Permission | None:
        if size > LARGEST_BYTES or self.bucket.signer() is None:
            return None
        if self._binds is None:
            self._binds = await self.run(lambda requests: binds_content(self.bucket, requests))
        return self.bucket.permission("PUT", name, seconds=seconds, sha256=sha256) if self._binds else None

    def permit_download(self, name: str, *, seconds: int) -> Permission | None:
        return self.bucket.permission("GET", name, seconds=seconds)

    async def run(self, work: Callable[[Requests], T]) -> T:
        """In a thread, with its refusal as an error of ours."""
        try:
            return await in_thread(work, Requests(ca_file=self.options.found_ca_file, patience=self._patience))
        except Refused as error:
            if error.status == 404 and error.refusal.code in ("NoSuchKey", "404"):
                raise FileNotFoundError(f"{self.url}: no such object") from None
            raise refused(error.refusal, url=self.url, options=self.options, now=self._clock()) from error

    def translate(self, error: Exception) -> Exception:
        return translated(error, url=self.url, options=self.options)

    def _ranges_of(self, name: str) -> Callable[[Requests, int, int, Sink], None]:
        def get(requests: Requests, start: int, length: int, sink: Sink) -> None:
            if self.bucket.signer() is not None:
                self.bucket.get(requests, name, start=start, length=length, sink=sink)
                return
            url = obstore.sign(self.store, "GET", name, timedelta(seconds=SIGNED_SECONDS))
            headers = {"host": urlsplit(url).netloc, "range": f"bytes={start}-{start + length - 1}"}
            requests.send("GET", lambda: (url, headers), sink=sink)

        return get

    async def _read_marker(self) -> str | None:
        try:
            answer = await obstore.get_async(self.store, MARKER)
            return bytes(await answer.bytes_async()).decode("ascii", "replace").strip()
        except FileNotFoundError as error:
            if code_in(str(error)) == "NoSuchBucket":
                raise self.translate(error) from error
            return None
        except BaseError as error:
            raise self.translate(error) from error

    def _provide(self) -> S3Credential:
        """For obstore, whenever it signs."""
        found = self._source.find()
        if found is None:
            raise refused(Refusal("NoCredentials"), url=self.url, options=self.options)
        return {
            "access_key_id": found.access_key_id,
            "secret_access_key": found.secret_access_key,
            "token": found.session_token or None,
            "expires_at": datetime.now(UTC) + KEYS_LAST,
        }


def _drop_uploads(bucket: Bucket, requests: Requests, before: datetime) -> None:
    for begun in bucket.uploads(requests, "blobs/"):
        if begun.time < before:
            bucket.abort(requests, begun.name, begun.upload)
