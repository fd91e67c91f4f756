"""Blobs on this machine's disk, fetched and verified once, shared by every process that is given the directory.

Layout: `<sha256>` is a blob's content, `<sha256>.ok` what the file looked like when its hash was right. An entry whose
file looks different now is verified again. On a local object store entries are hard links and take no room.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.downloads import PARTIAL
from tuneloom_common.objects.files import materialize

MARK = ".ok"
DEFAULT_MAX_BYTES = 100 << 30
ABANDONED_SECONDS = 24 * 3600.0
LOCK_POLL_SECONDS = 0.02


class BlobCache:
    """`max_bytes` bounds what the cache keeps once nobody is fetching; the least recently used entries leave."""

    def __init__(self, objects: ObjectStore, directory: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._objects = objects
        self._directory = directory.absolute()
        self._max_bytes = max_bytes

    async def materialize(self, files: Iterable[FileEntry], directory: Path) -> Path:
        """Makes files available in a directory that must not exist yet, verified, all or nothing.

        They are hard links into the cache: nobody may write to them.
        """
        try:
            return await materialize(files, directory, self._provide)
        except OSError as error:
            raise self._objects.translate(error) from error

    async def _provide(self, file: FileEntry, target: Path) -> None:
        entry = self._directory / file.sha256
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            async with self._locked(file.sha256):
                if not await asyncio.to_thread(_known_good, entry):
                    await self._fetch(file, entry)
                    await asyncio.to_thread(self._evict, keep=file.sha256)
            try:
                await asyncio.to_thread(_link_or_copy, entry, target)
                return
            except FileNotFoundError:  # evicted in between
                continue

    async def _fetch(self, file: FileEntry, entry: Path) -> None:
        entry.unlink(missing_ok=True)
        part = entry.with_name(f"{entry.name}.part")  # one at a time, under the lock: what a kill leaves is replaced
        part.unlink(missing_ok=True)
        try:
            await self._objects.fetch(file, part)
            part.rename(entry)
        finally:
            part.unlink(missing_ok=True)
        _mark(entry)

    def _locked(self, sha256: str) -> _Lock:
        return _Lock(self._directory / f".lock-{sha256[:2]}")

    def _evict(self, *, keep: str) -> None:
        self._forget_abandoned()
        entries = sorted(_entries(self._directory), key=lambda entry: entry[0])
        used = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if used <= self._max_bytes:
                return
            if path.name != keep:
                path.with_name(path.name + MARK).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                used -= size

    def _forget_abandoned(self) -> None:
        """Beginnings of blobs that nobody wants any more."""
        for path in self._directory.glob(f"*{PARTIAL}*"):
            with _vanishing():
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()


class _Lock:
    """One process and task at a time, by a file lock that ends with its holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    async def __aenter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(self._descriptor):  # noqa: ASYNC110 - a file lock has no event
                await asyncio.sleep(LOCK_POLL_SECONDS)
        except BaseException:
            os.close(self._descriptor)
            raise

    async def __aexit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _looks(entry: Path) -> str:
    status = entry.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _mark(entry: Path) -> None:
    mark = entry.with_name(entry.name + MARK)
    staged = mark.with_name(f"{mark.name}.part-{os.getpid()}")
    staged.write_text(_looks(entry))
    _use(staged)
    staged.rename(mark)


def _use(mark: Path) -> None:
    now = time.time_ns()  # file systems stamp by a clock of a few milliseconds
    os.utime(mark, ns=(now, now))


def _known_good(entry: Path) -> bool:
    """Whether the file is as it was when it was verified; notes that it was used."""
    mark = entry.with_name(entry.name + MARK)
    try:
        if mark.read_text() != _looks(entry):
            return False
        _use(mark)
    except OSError:
        return False
    return True


def _entries(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes that leaving would free, path)."""
    for mark in directory.glob(f"*{MARK}"):
        entry = mark.with_name(mark.name.removesuffix(MARK))
        with _vanishing():
            status = entry.stat()
            yield mark.stat().st_mtime, status.st_size if status.st_nlink == 1 else 0, entry


@contextmanager
def _vanishing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        pass


def _link_or_copy(entry: Path, target: Path) -> None:
    try:
        os.link(entry, target)
    except FileExistsError:
        raise
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        shutil.copyfile(entry, target)
