"""What a child may use. It reads files that others wrote, so it bounds itself before it opens one."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

# The private address space of a CUDA process is far larger than what it uses.
_CUDA_DEVICE = Path("/dev/nvidiactl")


def limit_time(seconds: float | None) -> None:
    """The kernel ends this process with SIGALRM after so much wall clock, whatever it does then."""
    if seconds is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(size_bytes: int | None) -> None:
    """More private memory than this is a MemoryError. Mapped files do not count; nor does a machine with a GPU."""
    if size_bytes is not None and not _CUDA_DEVICE.exists():
        _, ceiling = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = size_bytes if ceiling == resource.RLIM_INFINITY else min(size_bytes, ceiling)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, ceiling))
