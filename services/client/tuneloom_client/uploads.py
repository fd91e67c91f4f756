"""A local file on its way into the registry: hashed first, sent in pieces, not at all when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tuneloom.registry.v1 import registry_pb2, versions_pb2
from tuneloom_common.errors import NotFound
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import CHUNK_BYTES, hash_file

SLOWEST_BYTES_PER_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """`name` is the file's path inside the artifact."""

    path: Path
    entry: FileEntry

    @classmethod
    async def of(cls, path: Path, *, name: str = "") -> Upload:
        try:
            sha256, size = await asyncio.to_thread(hash_file, path)
        except FileNotFoundError:
            raise NotFound(f"{path} does not exist") from None
        return cls(path, FileEntry(path=name or path.name, size=size, sha256=sha256))

    @property
    def seconds(self) -> float:
        """How long sending it may take."""
        return 60 + self.entry.size / SLOWEST_BYTES_PER_SECOND

    async def parts(self, on_bytes: Callable[[int], None]) -> AsyncIterator[registry_pb2.UploadBlobRequest]:
        """What is coming, then its bytes. `on_bytes` hears how many have been sent."""
        yield registry_pb2.UploadBlobRequest(
            blob=versions_pb2.Blob(sha256=self.entry.sha256, size_bytes=self.entry.size)
        )
        sent = 0
        async for chunk in self.chunks():
            yield registry_pb2.UploadBlobRequest(chunk=chunk)
            sent += len(chunk)
            on_bytes(sent)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes in pieces."""
        with self.path.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                yield chunk
