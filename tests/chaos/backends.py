"""What a cluster stands on, run by the tests themselves: PostgreSQL, an S3 server, a disk that can be full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

KEEP_FREE_BYTES = 0


class Restarted:
    """A server that something outside starts again when it dies, as systemd would; found by its command line."""

    def __init__(self, program: str, mark: str) -> None:
        self._program = program
        self._mark = mark

    def kill(self) -> None:
        """SIGKILL, and the same command again."""
        for command, environment in self.end():
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def end(self) -> list[tuple[list[str], dict[str, str]]]:
        """SIGKILL; what ran."""
        found = list(self._running())
        for pid, _, _ in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _await_end(pid)
        return [(command, environment) for _, command, environment in found]

    def _running(self) -> Iterator[tuple[int, list[str], dict[str, str]]]:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and self._mark in (line := (entry / "cmdline").read_text()):
                    command = line.rstrip("\0").split("\0")
                    if Path(command[0]).name == self._program:
                        pairs = (entry / "environ").read_text().rstrip("\0").split("\0")
                        yield int(entry.name), command, dict(pair.partition("=")[::2] for pair in pairs)


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


@contextmanager
def disk(directory: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system of its own, so that it can be filled without harm to others; only root can mount it."""
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(directory)]
    subprocess.run(mount, check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@asynccontextmanager
async def filled(directory: Path) -> AsyncIterator[None]:
    """No byte is left on a disk; what others free in the meantime is taken too."""
    ballast = directory / "ballast"

    async def fill() -> None:
        while True:
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(0.05)

    filling = asyncio.create_task(fill())
    try:
        yield
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        ballast.unlink(missing_ok=True)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("ab") as output:
        while True:
            left = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
            if left <= KEEP_FREE_BYTES:
                return
            os.posix_fallocate(output.fileno(), output.seek(0, os.SEEK_END), left)
