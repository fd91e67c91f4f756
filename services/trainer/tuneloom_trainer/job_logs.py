"""The end of a worker's log, for a person who asks why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common.errors import InvalidArgument
from tuneloom_trainer.jobs import Job
from tuneloom_trainer.launchers.local import WORKER_LOG

DEFAULT_BYTES = 64 << 10
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LogTail:
    """Whole lines; `truncated` when the log has more before them."""

    text: str = ""
    truncated: bool = False


class JobLogs:
    """Logs of the workers that ran on this machine."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir

    async def tail(self, job: Job, *, max_bytes: int) -> LogTail:
        """The last lines within `max_bytes` (0: DEFAULT_BYTES); empty when there is no log."""
        if not 0 <= max_bytes <= MAX_BYTES:
            raise InvalidArgument(f"max_bytes: {max_bytes} is not between 0 and {MAX_BYTES}", field="max_bytes")
        return await asyncio.to_thread(_tail, self._runs_dir / job.id / WORKER_LOG, max_bytes or DEFAULT_BYTES)


def _tail(path: Path, wanted: int) -> LogTail:
    try:
        with path.open("rb") as log:
            begin = max(0, log.seek(0, 2) - wanted)
            log.seek(max(0, begin - 1))
            tail = log.read(wanted + min(begin, 1))
    except FileNotFoundError:
        return LogTail()
    if begin:  # a line that began before is left out
        _, _, tail = tail.partition(b"\n")
    return LogTail(tail.decode(errors="replace"), begin > 0)
