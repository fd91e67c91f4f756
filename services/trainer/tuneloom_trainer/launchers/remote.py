"""Workers out of reach: they report and upload to the trainer, see `worker/remote.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from tuneloom_common.attempts import PASSING
from tuneloom_common.errors import FailedPrecondition, NotFound
from tuneloom_common.objects import ObjectStore
from tuneloom_common.patience import error_line
from tuneloom_trainer.inboxes import Inbox
from tuneloom_trainer.launchers import StoredCheckpoint
from tuneloom_trainer.store import Reports
from tuneloom_trainer.worker.checkpoint_records import read_stored
from tuneloom_trainer.worker.protocol import CheckpointSaved, LoggedEvent

HEAR_SECONDS = 1.0
log = structlog.get_logger()


class RemoteRun:
    """What every launcher of workers elsewhere needs. `end` asks a worker to leave and, after the grace, ends it.

    The worker may talk to any trainer of the cluster: `reports` is what it tells the others. Before it is started its
    token is made known to them: `await reports.admit(inbox.lease, inbox.token, goes_on_from=inbox.goes_on_from)`.
    """

    def __init__(
        self, inbox: Inbox, objects: ObjectStore, reports: Reports, *, end: Callable[[float], Awaitable[None]]
    ) -> None:
        self._inbox = inbox
        self._objects = objects
        self._reports = reports
        self._end = end

    async def wait(self) -> int:
        hearing = asyncio.create_task(self._hear())
        exited = self._inbox.exited
        ends: set[asyncio.Future[Any]] = {hearing, exited}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()  # raises when what it told is no event
            return (await asyncio.shield(exited)).status
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def stop(self, *, grace_seconds: float) -> None:
        await self._end(grace_seconds)
        try:
            await self._reports.withdraw(self._inbox.lease)
        except PASSING as error:  # then the next claim ends what the token is good for
            log.warning(f"a worker's token is not withdrawn: {error_line(error)}", job=self._inbox.lease.id)

    async def store(self, saved: CheckpointSaved) -> StoredCheckpoint:
        """What is stored is read and hashed: the worker may have put it there itself."""
        for file in saved.files:
            if not await self._objects.holds(file.sha256, size=file.size):
                raise NotFound(f"step {saved.step}: {file.path} was told as stored and is not; upload it again")
        return StoredCheckpoint(saved.files, await read_stored(self._objects, saved.files))

    async def _hear(self) -> None:
        """Takes in what the worker told other trainers, until nobody listens any more."""
        with self._reports.heard(self._inbox.lease) as changes:
            while True:
                try:
                    told = await self._reports.told(self._inbox.lease, after=self._inbox.told)
                    await self._inbox.report([LoggedEvent.parse(line.encode()) for _, line in told])
                except PASSING as error:
                    log.warning(f"cannot read what a worker told elsewhere: {error_line(error)}")
                except FailedPrecondition:  # the inbox is shut
                    return
                await changes.wait(HEAR_SECONDS)

    def last_words(self) -> str:
        return self._inbox.exited.result().last_words if self._inbox.exited.done() else ""
