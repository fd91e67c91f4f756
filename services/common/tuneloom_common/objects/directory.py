"""file:///directory"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from functools import cached_property
from pathlib import Path

import obstore
from obstore.store import LocalStore

from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_common.objects import reading
from tuneloom_common.objects.creation import by_store
from tuneloom_common.objects.faults import translated
from tuneloom_common.objects.files import hash_file, sync
from tuneloom_common.objects.identity import MARKER, new_identity


class Directory:
    """A directory of this machine. Without its marker the disk is not mounted: nothing there is known to be absent, and
    what was written there would be hidden once the disk is back."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = f"file://{root}"
        self.expected: str | None = None

    @cached_property
    def store(self) -> LocalStore:
        self._require()
        return LocalStore(prefix=self._root)

    async def check(self) -> str | None:
        return self._identity()

    async def require(self) -> None:
        self._require()

    def _require(self) -> None:
        found = self._identity()
        if found is None:
            raise Unavailable(f"object store {self.url} is away: it has no {MARKER}; mount its disk (again)")
        if self.expected and found != self.expected:
            raise Unavailable(
                f"{self.url} is another object store ({found or 'unnamed'}) than the one in use here "
                f"({self.expected}, see its {MARKER}); mount the right disk"
            )

    async def identity(self) -> str | None:
        return self._identity()

    def _identity(self) -> str | None:
        try:
            return (self._root / MARKER).read_text("ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def mark(self) -> str:
        if found := self._identity():
            return found
        self._root.mkdir(parents=True, exist_ok=True)
        staged = self._root / f"{MARKER}.part-{secrets.token_hex(4)}"
        staged.write_text(new_identity())
        try:
            sync(staged)
            if self._identity() == "":  # of an earlier release
                staged.replace(self._root / MARKER)
            else:
                os.link(staged, self._root / MARKER)
        except FileExistsError:  # another process was faster
            pass
        finally:
            staged.unlink(missing_ok=True)
        sync(self._root)
        return self._identity() or ""

    async def used(self) -> bool:
        return (self._root / "blobs").is_dir()

    async def create(self, name: str, data: bytes) -> bool:
        created = await by_store(self.store, name, data)
        if created:
            await self._settle(name)
        return created

    async def overwrite(self, name: str, data: bytes) -> None:
        await obstore.put_async(self.store, name, data, use_multipart=False)
        await self._settle(name)

    def stream(self, name: str) -> AsyncIterator[bytes]:
        return reading.stream(self.store, name)

    async def upload(self, path: Path, name: str, *, sha256: str, size: int) -> None:
        await obstore.put_async(self.store, name, path)
        await self._settle(name)

    async def download(self, name: str, target: Path, *, sha256: str, size: int) -> bool | None:
        """A hard link, where it can be one: nobody may write to it."""
        if not await asyncio.to_thread(self._link, self._root / name, target):
            return None
        found, _ = await asyncio.to_thread(hash_file, target)
        if found != sha256:
            target.unlink()
        return found == sha256

    async def permit_upload(self, name: str, *, sha256: str, size: int, seconds: int) -> None:
        """There is no address to give."""

    def permit_download(self, name: str, *, seconds: int) -> None: ...

    def translate(self, error: Exception) -> Exception:
        return translated(error, url=self.url)

    async def _settle(self, name: str) -> None:
        path = self._root / name  # it was renamed without syncing
        await asyncio.to_thread(sync, path)
        await asyncio.to_thread(sync, path.parent)

    def _link(self, source: Path, target: Path) -> bool:
        try:
            os.link(source, target)
        except FileNotFoundError:
            self._require()
            raise NotFound(f"blob {source.name} is not stored; upload it first") from None
        except OSError:  # another file system
            return False
        return True
