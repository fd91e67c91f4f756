"""An object on its way into a file: ranges, several at a time, hashed in order while they come, going on with the
ranges that an interrupted download left.

`TARGET.fetching` is the file while it grows, `TARGET.fetching.ranges` lists the ranges that it holds, a number a line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common.objects.progress import OnBytes
from tuneloom_common.objects.requests import Read, Requests, Sink

RANGE_BYTES = 16 << 20
PIECE_BYTES = 1 << 20
CONCURRENCY = 10
PARTIAL = ".fetching"
RANGES = ".ranges"
Get = Callable[[Requests, int, int, Sink], None]
"""Reads `length` bytes from `start` into a sink."""


def partial(target: Path) -> Path:
    """Where a download's bytes are until it is whole."""
    return target.with_name(target.name + PARTIAL)


@dataclass(frozen=True, slots=True)
class FileDownload:
    """`get` reads a range of the object."""

    get: Get
    target: Path
    sha256: str
    size: int
    on_bytes: OnBytes = lambda count: None
    range_bytes: int = RANGE_BYTES

    def run(self, requests: Requests) -> bool:
        """Makes the target, which must not exist, and returns True; False where the bytes are not what their name says.
        Blocks; raises Refused or Stopped."""
        for again in (True, False):
            resumed, sha256 = self._fetch(requests)
            if sha256 == self.sha256:
                os.link(partial(self.target), self.target)  # fails where something is
                self._forget()
                return True
            self._forget()
            if not (again and resumed):  # what lay here may have been wrong, and not what is stored
                break
        return False

    def _fetch(self, requests: Requests) -> tuple[bool, str]:
        """Whether an earlier download's ranges were used, and the hash of the whole."""
        descriptor = os.open(partial(self.target), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            there = self._there(descriptor)
            os.posix_fallocate(descriptor, 0, self.size)  # a disk that is too small says so now
            return bool(there), self._pour(requests, descriptor, there)
        finally:
            os.close(descriptor)

    def _pour(self, requests: Requests, descriptor: int, there: set[int]) -> str:
        hasher = hashlib.sha256()
        numbers = range(-(-self.size // self.range_bytes))
        with self._journal.open("ab", buffering=0) as journal, _pool() as pool:
            coming = [
                pool.submit(self._range, requests, descriptor, journal.fileno(), number)
                if number not in there
                else None
                for number in numbers
            ]
            try:
                for number, one in enumerate(coming):
                    self._hash(hasher, descriptor, number, one)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return hasher.hexdigest()

    def _hash(self, hasher: hashlib._Hash, descriptor: int, number: int, coming: Future[None] | None) -> None:
        if coming is not None:
            coming.result()
        start, length = self._span(number)
        self.on_bytes(length)
        buffer = memoryview(bytearray(PIECE_BYTES))
        while length:
            count = os.preadv(descriptor, [buffer[: min(PIECE_BYTES, length)]], start)
            hasher.update(buffer[:count])
            start, length = start + count, length - count

    def _range(self, requests: Requests, descriptor: int, journal: int, number: int) -> None:
        start, length = self._span(number)

        def write(read: Read) -> None:
            buffer, at = memoryview(bytearray(PIECE_BYTES)), start
            while count := read(buffer[: min(PIECE_BYTES, start + length - at)]):
                _write(descriptor, buffer[:count], at)
                at += count
            if at < start + length:
                raise ConnectionError("the server ended early")

        self.get(requests, start, length, write)
        os.write(journal, b"%d\n" % number)

    def _there(self, descriptor: int) -> set[int]:
        """Ranges of an earlier download of these bytes."""
        if os.fstat(descriptor).st_size != self.size:
            self._journal.unlink(missing_ok=True)
            return set()
        try:
            return {int(line) for line in self._journal.read_text().split()}
        except (OSError, ValueError):
            self._journal.unlink(missing_ok=True)
            return set()

    def _span(self, number: int) -> tuple[int, int]:
        start = number * self.range_bytes
        return start, min(self.range_bytes, self.size - start)

    def _forget(self) -> None:
        partial(self.target).unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    @property
    def _journal(self) -> Path:
        path = partial(self.target)
        return path.with_name(path.name + RANGES)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="download")


def _write(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, at)
        data, at = data[count:], at + count
