"""Takes from this process what reading other people's files does not need. There is no way back."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

NICENESS = 10
UMASK = 0o077
_TICK_SECONDS = 1.0
# The timer is the limit that can say so; this one ends what does not listen, such as one endless call into C.
_CPU_GRACE_SECONDS = 10


class OutOfTime(BaseException):
    """Raised wherever the process is when its time is over, so that nothing on the way takes it for its own."""


def confine(*, memory_bytes: int, seconds: float) -> None:
    """Bounds memory and processor time, keeps no core dump, environment, or file but the standard ones, and is nice."""
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_CPU, int(seconds) + _CPU_GRACE_SECONDS)
    _lower(resource.RLIMIT_CORE, 0)
    os.umask(UMASK)
    os.nice(NICENESS)
    os.environ.clear()
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        if descriptor > 2:
            with suppress(OSError):  # the one that read the folder
                os.close(descriptor)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the body after `seconds` of the wall clock; ends the process when its parent is gone."""
    deadline = time.monotonic() + seconds
    parent = os.getppid()

    def tick(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(128 + signal.SIGHUP)
        if time.monotonic() >= deadline:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, tick)
    tick_seconds = min(_TICK_SECONDS, seconds)
    signal.setitimer(signal.ITIMER_REAL, tick_seconds, tick_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _lower(limit: int, value: int) -> None:
    """Sets a limit that nobody may raise again; one that is lower already stays."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
