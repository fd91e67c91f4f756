"""Where objects lie: a directory of this machine, or the memory of a test. `ObjectStore` knows what lies there."""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, S3Store

from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.objects.files import hash_file, sync

MARKER = ".tuneloom-store"
"""Lies in every store and holds its identity. Where it is missing from a directory, the disk is not mounted: nothing
there is known to be absent, and what was written there would be hidden once the disk is back."""


class Place(Protocol):
    """What differs between kinds of storage. `expected` is the identity that the store is known to have."""

    expected: str | None

    @property
    def store(self) -> LocalStore | S3Store | MemoryStore: ...

    async def require(self) -> None:
        """Raises Unavailable when nothing can be said about what is stored."""

    async def identity(self) -> str | None:
        """What the marker says: "" in one of an earlier release; None where there is none."""

    async def mark(self) -> str:
        """Makes this a store, unless it is one; returns its identity."""

    async def used(self) -> bool:
        """Whether blobs lie here, as in stores of releases that knew no marker."""

    async def settle(self, name: str) -> None:
        """Returns when what was written outlives a power cut."""

    async def link(self, name: str, target: Path) -> str | None:
        """Makes an object available without a copy and returns its sha256; None where it has to be copied."""


class Directory:
    """file:///directory"""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.expected: str | None = None

    @cached_property
    def store(self) -> LocalStore:
        self._require()
        return LocalStore(prefix=self._root)

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

    @property
    def url(self) -> str:
        return f"file://{self._root}"

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

    async def settle(self, name: str) -> None:
        path = self._root / name  # it was renamed without syncing
        await asyncio.to_thread(sync, path)
        await asyncio.to_thread(sync, path.parent)

    async def link(self, name: str, target: Path) -> str | None:
        if not await asyncio.to_thread(self._link, self._root / name, target):
            return None
        sha256, _ = await asyncio.to_thread(hash_file, target)
        return sha256

    def _link(self, source: Path, target: Path) -> bool:
        try:
            os.link(source, target)
        except FileNotFoundError:
            self._require()
            raise NotFound(f"blob {source.name} is not stored; upload it first") from None
        except OSError:  # another file system
            return False
        return True


class Elsewhere:
    """s3://bucket/prefix and memory://"""

    def __init__(self, store: S3Store | MemoryStore) -> None:
        self.store = store
        self.expected: str | None = None

    async def require(self) -> None: ...

    async def identity(self) -> str | None:
        try:
            answer = await obstore.get_async(self.store, MARKER)
        except FileNotFoundError:
            return None
        return bytes(await answer.bytes_async()).decode("ascii", "replace").strip()

    async def mark(self) -> str:
        try:
            await obstore.put_async(self.store, MARKER, new_identity().encode(), mode="create", use_multipart=False)
        except AlreadyExistsError:
            pass
        return await self.identity() or ""

    async def used(self) -> bool:
        async for found in obstore.list(self.store, "blobs", chunk_size=1):
            return bool(found)
        return False

    async def settle(self, name: str) -> None: ...

    async def link(self, name: str, target: Path) -> str | None:
        return None


def open_place(url: str) -> Place:
    """Raises InvalidArgument for a URL that is none of ours."""
    parsed = urlparse(url)
    if parsed.scheme == "file" and not parsed.netloc and parsed.path.startswith("/"):
        return Directory(Path(parsed.path))
    if parsed.scheme == "s3":
        return Elsewhere(S3Store.from_url(url))
    if parsed.scheme == "memory":
        return Elsewhere(MemoryStore())
    raise InvalidArgument(f"object store URL {url!r}: use file:///directory or s3://bucket/prefix")


def new_identity() -> str:
    return secrets.token_hex(8)
