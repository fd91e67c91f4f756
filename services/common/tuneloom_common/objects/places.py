"""Where objects lie: a directory of this machine, or the memory of a test. `ObjectStore` knows what lies there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from obstore.store import LocalStore, MemoryStore, S3Store

from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.objects.files import hash_file, sync

MARKER = ".tuneloom-store"
"""Lies in the directory of a local store. Where it is missing, the disk is not mounted: nothing there is known to be
absent, and what was written there would be hidden once the disk is back."""


class Place(Protocol):
    """What differs between kinds of storage."""

    @property
    def store(self) -> LocalStore | S3Store | MemoryStore: ...

    def require(self) -> None:
        """Raises Unavailable when nothing can be said about what is stored."""

    async def settle(self, name: str) -> None:
        """Returns when what was written outlives a power cut."""

    async def link(self, name: str, target: Path) -> str | None:
        """Makes an object available without a copy and returns its sha256; None where it has to be copied."""


class Directory:
    """file:///directory"""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.store = LocalStore(prefix=root, mkdir=True)
        if not (root / MARKER).exists():  # a store may be mounted read-only
            (root / MARKER).touch()

    def require(self) -> None:
        if not (self._root / MARKER).exists():
            raise Unavailable(f"object store file://{self._root} is away: it has no {MARKER}; mount its disk again")

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
            self.require()
            raise NotFound(f"blob {source.name} is not stored; upload it first") from None
        except OSError:  # another file system
            return False
        return True


class Elsewhere:
    """s3://bucket/prefix and memory://"""

    def __init__(self, store: S3Store | MemoryStore) -> None:
        self.store = store

    def require(self) -> None: ...

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
