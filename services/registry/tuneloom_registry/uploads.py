"""Uploads: received into a local file, held against what was announced, then stored under their hash."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tuneloom.registry.v1 import registry_pb2, versions_pb2
from tuneloom_common.errors import InvalidArgument, ResourceExhausted, Unavailable
from tuneloom_common.ids import check_sha256
from tuneloom_common.objects import ObjectStore
from tuneloom_data.limits import in_words


@dataclass(frozen=True, slots=True)
class Uploads:
    """`staging` is a local directory. An upload that sends nothing for `idle_seconds` is ended."""

    objects: ObjectStore
    staging: Path
    max_bytes: int
    idle_seconds: float

    async def take(self, parts: AsyncIterator[registry_pb2.UploadBlobRequest]) -> versions_pb2.Blob:
        """Stores what the parts carry unless it is stored and sound already; returns what was announced."""
        expected = (await self._next(parts) or registry_pb2.UploadBlobRequest()).blob
        check_sha256(expected.sha256, field="blob.sha256")
        if expected.size_bytes > self.max_bytes:
            raise InvalidArgument(
                f"blob.size_bytes: {in_words(expected.size_bytes)} is more than the {in_words(self.max_bytes)} that "
                "are taken here; split the file, or raise TUNELOOM_REGISTRY_MAX_UPLOAD_BYTES",
                field="blob.size_bytes",
            )
        if not await self.objects.holds(expected.sha256, size=expected.size_bytes):
            with tempfile.NamedTemporaryFile(dir=self.staging) as staged:
                await self._receive(parts, expected, Path(staged.name))
                await self.objects.put_known_file(Path(staged.name), sha256=expected.sha256, size=expected.size_bytes)
        return expected

    async def _next(
        self, parts: AsyncIterator[registry_pb2.UploadBlobRequest]
    ) -> registry_pb2.UploadBlobRequest | None:
        try:
            async with asyncio.timeout(self.idle_seconds):
                return await anext(parts, None)
        except TimeoutError:
            raise Unavailable(
                f"the upload sent nothing for {self.idle_seconds:.0f} s and was ended; send it again", reason="TIMEOUT"
            ) from None

    async def _receive(
        self, parts: AsyncIterator[registry_pb2.UploadBlobRequest], expected: versions_pb2.Blob, target: Path
    ) -> None:
        """Writes the chunks to a file; raises InvalidArgument when they are not what was announced."""
        hasher, size = hashlib.sha256(), 0
        try:
            with target.open("wb") as output:
                while (part := await self._next(parts)) is not None:
                    size += len(part.chunk)
                    if size > expected.size_bytes:
                        break
                    await asyncio.to_thread(_write, output, hasher, part.chunk)
        except OSError as error:  # of a write, or of the last one when the file is closed
            if isinstance(error, Unavailable):
                raise
            raise ResourceExhausted(
                f"no space left for the upload ({error.strerror}); free some and upload again", reason="DISK_FULL"
            ) from error
        if size != expected.size_bytes or hasher.hexdigest() != expected.sha256:
            raise InvalidArgument(
                f"blob: got {size} bytes with another hash than announced ({expected.size_bytes} bytes, "
                f"{expected.sha256}); the file changed or the upload was cut, send it again",
                field="blob",
            )


def _write(output: BinaryIO, hasher: hashlib._Hash, chunk: bytes) -> None:
    hasher.update(chunk)
    output.write(chunk)
