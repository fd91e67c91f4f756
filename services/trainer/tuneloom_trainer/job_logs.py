"""The end of a worker's log, for a person who asks why.

A log is a file where the worker runs. Its end is also kept in the database, so that every trainer can show it.
"""

from __future__ import annotations

from tuneloom_common.errors import InvalidArgument
from tuneloom_trainer.jobs import Job, LogTail
from tuneloom_trainer.launchers import Launcher
from tuneloom_trainer.store import JobStore

DEFAULT_BYTES = 64 << 10
MAX_BYTES = 1 << 20


class JobLogs:
    """Whole here when the newest attempt ran here, else as far as its trainer has told."""

    def __init__(self, launcher: Launcher, store: JobStore) -> None:
        self._launcher = launcher
        self._store = store

    async def tail(self, job: Job, *, max_bytes: int) -> LogTail:
        """The last lines within `max_bytes` (0: DEFAULT_BYTES); empty when there is no log."""
        if not 0 <= max_bytes <= MAX_BYTES:
            raise InvalidArgument(f"max_bytes: {max_bytes} is not between 0 and {MAX_BYTES}", field="max_bytes")
        wanted = max_bytes or DEFAULT_BYTES
        if (here := await self._launcher.log(job.id, since=job.lease_epoch, max_bytes=wanted)) is not None:
            return here
        if (told := await self._store.log(job.id)) is not None:
            return told.within(wanted)
        return await self._launcher.log(job.id, since=0, max_bytes=wanted) or LogTail()
