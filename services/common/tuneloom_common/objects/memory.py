"""memory://, for tests"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.store import MemoryStore

from tuneloom_common.objects import reading
from tuneloom_common.objects.creation import by_store
from tuneloom_common.objects.faults import translated
from tuneloom_common.objects.identity import MARKER, new_identity


class Memory:
    """Lives and dies with its process; nothing here can be away."""

    url = "memory://"

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.expected: str | None = None

    async def check(self) -> str | None:
        return await self.identity()

    async def require(self) -> None: ...

    async def identity(self) -> str | None:
        try:
            answer = await obstore.get_async(self.store, MARKER)
        except FileNotFoundError:
            return None
        return bytes(await answer.bytes_async()).decode("ascii")

    async def mark(self) -> str:
        await by_store(self.store, MARKER, new_identity().encode())
        return await self.identity() or ""

    async def used(self) -> bool:
        return False

    async def create(self, name: str, data: bytes) -> bool:
        return await by_store(self.store, name, data)

    async def overwrite(self, name: str, data: bytes) -> None:
        await obstore.put_async(self.store, name, data)

    def stream(self, name: str) -> AsyncIterator[bytes]:
        return reading.stream(self.store, name)

    async def upload(self, path: Path, name: str, *, sha256: str, size: int) -> None:
        await obstore.put_async(self.store, name, path)

    async def download(self, name: str, target: Path, *, sha256: str, size: int) -> bool | None:
        return None

    async def permit_upload(self, name: str, *, sha256: str, size: int, seconds: int) -> None:
        """There is no address to give."""

    def permit_download(self, name: str, *, seconds: int) -> None: ...

    def translate(self, error: Exception) -> Exception:
        return translated(error, url=self.url)
