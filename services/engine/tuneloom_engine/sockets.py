"""Where private Unix sockets lie: a directory of this process that only its user can enter.

A port can be taken by anybody once it is given back; a path in here belongs to one engine and is never used again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tuneloom_common.errors import FailedPrecondition

PREFIX = "tuneloom-"
# The kernel keeps 108 bytes for a path, with a zero at its end.
MAX_PATH_BYTES = 107
ADAPTERS = "adapters.sock"
# vLLM's own sockets in here are called by a UUID.
LONGEST_NAME = "0" * 36


class SocketDirectory:
    """Removed at the end; what killed processes left is removed when the next one starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = count(1)

    @classmethod
    @contextmanager
    def create(cls, parent: Path | None) -> Iterator[SocketDirectory]:
        """In `parent`, by default the system's directory for temporary files."""
        parent = (parent or Path(tempfile.gettempdir())).absolute()
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_leftovers(parent)
        directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        try:
            if len(os.fsencode(directory / LONGEST_NAME)) > MAX_PATH_BYTES:
                raise FailedPrecondition(
                    f"{directory} is too long for Unix sockets (107 bytes); set TUNELOOM_ENGINE_SOCKET_DIR to a "
                    "shorter path",
                    reason="SOCKET_PATH_TOO_LONG",
                )
            yield cls(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def adapters(self) -> Path:
        """Where engines ask for adapters."""
        return self.directory / ADAPTERS

    def next(self) -> Path:
        """A path that was never used."""
        return self.directory / f"{next(self._numbers)}.sock"


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*-*"):
        pid = directory.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not runs(int(pid)) and directory.stat().st_uid == os.getuid():
            shutil.rmtree(directory, ignore_errors=True)


def runs(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
