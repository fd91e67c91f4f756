"""What a long transfer tells the log: now and then, and at its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

EVERY_SECONDS = 10.0
OnBytes = Callable[[int], None]
"""Hears how many bytes more have arrived, from any thread."""
log = structlog.get_logger()


class Progress:
    """Of one transfer. `add` may be called from any thread; transfers that take no time say nothing."""

    def __init__(self, what: str, size: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._size = size
        self._clock = clock
        self._done = 0
        self._began = self._told = clock()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._told < EVERY_SECONDS:
                return
            self._told = now
        self._tell(now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._told != self._began:
            self._tell(self._clock(), "done: " if kind is None else "stopped: ")

    def _tell(self, now: float, how: str = "") -> None:
        speed = self._done / max(now - self._began, 0.001) / 1e6
        log.info(f"{how}{self._what}: {self._done / 1e9:.1f} of {self._size / 1e9:.1f} GB, {speed:.0f} MB/s")
