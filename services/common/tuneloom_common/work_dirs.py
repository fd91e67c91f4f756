"""A service's own directory: what lies there is one process's, and is cleaned by it when it starts."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneloom_common.errors import FailedPrecondition

LOCK_FILE = ".in-use"


@contextmanager
def held(directory: Path, *, setting: str) -> Iterator[None]:
    """Keeps other processes from a directory, which is made where it is missing. The kernel lets go of it with the
    process, however that ends. `setting` names the directory in the error."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FailedPrecondition(
                f"another process works in {directory.absolute()}; give each a directory of its own with {setting}",
                reason="WORK_DIR_IN_USE",
            ) from None
        yield
