"""S3 servers of our own, on loopback, for as long as a test run lasts."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1


class NotRun(Exception):
    """What is missing on this machine, and what to install."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A key pair of the server's."""

    access: str
    secret: str = field(repr=False)

    def write(self, path: Path) -> Path:
        """As an operator would, into a file that others cannot read."""
        path.touch(mode=0o600)
        path.write_text(f"[default]\naws_access_key_id = {self.access}\naws_secret_access_key = {self.secret}\n")
        return path


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and two users of it."""

    endpoint: str
    one: Keys
    two: Keys
    region: str = "us-east-1"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def require_debian(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Installs packages unless their programs are there; raises NotRun where that is not for us to do."""
    if all(shutil.which(program) for program in programs):
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NotRun(f"{', '.join(programs)} are missing: run 'sudo {' '.join(command)}' and repeat this")
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "PATH": os.environ["PATH"]}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet, stdout=subprocess.DEVNULL)
    subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def running(command: Sequence[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, and with us."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
