"""Workers out of reach: they report and upload to the trainer, see `worker/remote.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tuneloom_common.errors import NotFound
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.inboxes import Inbox
from tuneloom_trainer.launchers import StoredCheckpoint
from tuneloom_trainer.worker.checkpoint_records import read_stored
from tuneloom_trainer.worker.protocol import CheckpointSaved


class RemoteRun:
    """What every launcher of workers elsewhere needs. `end` asks a worker to leave and, after the grace, ends it."""

    def __init__(self, inbox: Inbox, objects: ObjectStore, *, end: Callable[[float], Awaitable[None]]) -> None:
        self._inbox = inbox
        self._objects = objects
        self._end = end

    async def wait(self) -> int:
        return (await asyncio.shield(self._inbox.exited)).status

    async def stop(self, *, grace_seconds: float) -> None:
        await self._end(grace_seconds)

    async def store(self, saved: CheckpointSaved) -> StoredCheckpoint:
        for file in saved.files:
            if not await self._objects.has_blob(file.sha256, size=file.size):
                raise NotFound(f"step {saved.step}: {file.path} was told as stored and is not; upload it again")
        return StoredCheckpoint(saved.files, await read_stored(self._objects, saved.files))

    def last_words(self) -> str:
        return self._inbox.exited.result().last_words if self._inbox.exited.done() else ""
