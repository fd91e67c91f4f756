"""Versions on this machine's disk: `directory/<digest>` holds the files of one version, complete and verified."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections import defaultdict
from pathlib import Path

from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.errors import Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_engine.sockets import runs

_DIGEST = re.compile(r"[0-9a-f]{64}")


class VersionCache:
    """Versions have holders, the engines that may still read their files. Without one, they leave by size."""

    def __init__(self, blobs: BlobCache, directory: Path, *, max_bytes: int) -> None:
        self._blobs = blobs
        self._directory = directory.absolute()
        self._max_bytes = max_bytes
        self._fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._holders: defaultdict[str, set[str]] = defaultdict(set)

    async def fetch(self, digest: str, files: tuple[FileEntry, ...], *, holder: str) -> Path:
        """The version's directory; nothing removes it until the holder is released."""
        self._holders[digest].add(holder)
        directory = self._directory / digest
        async with self._fetching[digest]:
            if not await asyncio.to_thread(_holds, directory, files):
                await asyncio.to_thread(shutil.rmtree, directory, True)
                await self._make(directory, files)
        await asyncio.to_thread(os.utime, directory)
        return directory

    def release(self, holder: str) -> None:
        """The holder has ended."""
        for digest in [digest for digest, holders in self._holders.items() if holder in holders]:
            self._holders[digest].discard(holder)
            if not self._holders[digest]:
                del self._holders[digest]

    def prune(self) -> None:
        """Removes versions without a holder, least recently used first, until the rest is within `max_bytes`."""
        idle = [path for path in self._directory.glob("*") if _DIGEST.fullmatch(path.name)]
        idle = sorted((path for path in idle if path.name not in self._holders), key=_last_used)
        sizes = {path: _own_bytes(path) for path in idle}
        for path in idle:
            if sum(sizes.values()) <= self._max_bytes:
                return
            del sizes[path]
            # Renamed first: a directory is there as a whole or not at all.
            leaving = path.with_name(f"{path.name}.part-leaving-{os.getpid()}")
            path.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Deletes what processes that are gone have not finished fetching or removing."""
        for staging in self._directory.glob("*.part-*"):
            pid = staging.name.rpartition("-")[2]
            if pid.isdigit() and not runs(int(pid)):
                shutil.rmtree(staging, ignore_errors=True)

    async def _make(self, directory: Path, files: tuple[FileEntry, ...]) -> None:
        try:
            await self._blobs.materialize(files, directory)
        except Unavailable:
            # Another process may have been faster: the directory appears all at once, or not at all.
            if not await asyncio.to_thread(_holds, directory, files):
                raise


def _holds(directory: Path, files: tuple[FileEntry, ...]) -> bool:
    """Whether all files are there with their sizes; their content was verified when they were fetched."""
    try:
        return all((directory / file.path).stat().st_size == file.size for file in files)
    except OSError:
        return False


def _last_used(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0


def _own_bytes(directory: Path) -> int:
    """What nothing else than the blob cache has a link to: on a local object store, nothing."""
    files = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum(status.st_size for status in files if status.st_nlink <= 2)
