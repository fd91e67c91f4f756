"""Where workers run. A launcher starts a worker for an attempt; what the worker tells goes to the attempt's inbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_trainer.inboxes import Inbox
from tuneloom_trainer.jobs import Job, LogTail
from tuneloom_trainer.worker.checkpoint_records import CheckpointRecord
from tuneloom_trainer.worker.protocol import CheckpointSaved


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint whose files are in the object store, and what it says about itself."""

    files: tuple[FileEntry, ...]
    record: CheckpointRecord


class Run(Protocol):
    """One worker at work on one attempt."""

    async def wait(self) -> int:
        """The exit status, once everything the worker told has reached the inbox."""

    async def stop(self, *, grace_seconds: float) -> None:
        """Asks the worker to save and leave, and ends it after the grace. Fine when it has ended."""

    async def store(self, saved: CheckpointSaved) -> StoredCheckpoint:
        """Sees that a checkpoint the worker saved is in the object store."""

    def last_words(self) -> str:
        """The end of the worker's own log, for an error message."""


class Launcher(Protocol):
    """Starts workers. `registered` is the newest registered checkpoint, from which a worker goes on."""

    async def start(self, job: Job, inbox: Inbox, *, registered: tuple[int, Manifest] | None) -> Run:
        """Raises Unavailable when trying again may help."""

    async def attach(self, job: Job, inbox: Inbox) -> Run | None:
        """The run that an earlier trainer process started for this job and that is still at work, if there can be
        one."""

    async def log(self, job_id: str, *, since: int, max_bytes: int) -> LogTail | None:
        """The end of its workers' log; None when no attempt since that epoch ran where this launcher sees it."""

    async def clean(self, job_id: str) -> None:
        """Drops what can be fetched again; the worker's log and events stay."""

    async def kept(self) -> list[str]:
        """Ids of jobs of which something is left to clean."""
