"""Child processes: heavy work happens there, so a crash or out-of-memory kills one job and memory is really freed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
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


async def spawn(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Starts a child in a process group of its own; its output is appended to `log`."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {}), PARENT_VARIABLE: str(os.getpid())},
            start_new_session=True,
        )


async def stop(process: asyncio.subprocess.Process, *, grace_seconds: float) -> int:
    """SIGTERM, then SIGKILL to the whole group after the grace. Returns the exit status."""
    if process.returncode is None:
        signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), grace_seconds)
        except TimeoutError:
            pass
    signal_group(process.pid, signal.SIGKILL)
    return await process.wait()


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signals a child's process group; a group that is gone is fine."""
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
