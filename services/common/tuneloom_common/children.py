"""Child processes: heavy work happens there, so a crash or out-of-memory kills one job and memory is really freed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

_PR_SET_PDEATHSIG = 1
PARENT_VARIABLE = "TUNELOOM_PARENT_PID"

# For children that compute, set before they import their libraries: nothing from a hub, no chatter, and threads
# that sleep while they wait. Spinning ones slow training several times when an engine wants the same cores.
COMPUTE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}

_PRIVATE = re.compile(
    r"^(TUNELOOM|AWS|OTEL)_|^PG[A-Z_]|TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|_KEY$|DATABASE_URL|_DSN$"
)
# Children write files that hold people's data.
PRIVATE_UMASK = 0o077


class Inherit(Enum):
    """What a child gets of its parent's environment."""

    SAFE = "safe"
    """Nothing of ours and nothing that looks like a secret: children parse files that others wrote."""
    ALL = "all"
    """Everything: for a service, which reads its settings there."""


def environment(inherit: Inherit = Inherit.SAFE) -> dict[str, str]:
    """This process's environment, as far as a child may know it."""
    everything = dict(os.environ)
    if inherit is Inherit.ALL:
        return everything
    return {name: value for name, value in everything.items() if not _PRIVATE.search(name.upper())}


def die_with_parent() -> None:
    """Asks the kernel (Linux) to kill this process when its parent dies. Called first thing in a child.

    Does nothing in a process that `spawn` did not start: a service run by an init system or a container.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit("the parent process is gone")


class Child:
    """A running child and its process group. What the child leaves behind in its group is killed when it ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ended = asyncio.create_task(self._reap())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        """The exit status; negative for the signal that killed it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Signals the group of a child that still runs; later its number may be somebody else's."""
        if self._process.returncode is None:
            _signal_group(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM to the child alone, whose own children it will end itself."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def stop(self, *, grace_seconds: float) -> int:
        """SIGTERM, then SIGKILL to the whole group after the grace. Returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                return await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
        return await self.wait()

    async def _reap(self) -> int:
        status = await self._process.wait()
        _signal_group(self.pid, signal.SIGKILL)  # at once: while members live, the number is not given away
        return status


async def spawn(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    inherit: Inherit = Inherit.SAFE,
) -> Child:
    """Starts a child in a process group of its own; its output is appended to `log`. `env` is added to what it
    inherits."""
    with log.open("ab") as output:
        return Child(
            await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=cwd,
                env={**environment(inherit), **(env or {}), PARENT_VARIABLE: str(os.getpid())},
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )
        )


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a child's output, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
