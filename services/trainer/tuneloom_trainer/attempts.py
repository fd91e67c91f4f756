"""One claim of one job: from the launch of its worker to what becomes of the job."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from tuneloom_common.attempts import PASSING, patiently
from tuneloom_common.disks import EXIT_DISK_FULL
from tuneloom_common.patience import error_line
from tuneloom_common.queue import Retry
from tuneloom_trainer.inboxes import Inbox, Inboxes
from tuneloom_trainer.jobs import Checkpoint, Job, LogTail
from tuneloom_trainer.launchers import Launcher, Run
from tuneloom_trainer.publications import Publications
from tuneloom_trainer.publishing import Publisher
from tuneloom_trainer.store import JobQueue
from tuneloom_trainer.training_events import DataReport, Note, Progress, SampleChat
from tuneloom_trainer.worker.protocol import (
    EXIT_DONE,
    EXIT_STOPPED,
    CheckpointSaved,
    Failed,
    Finished,
    LoggedEvent,
    Training,
    Validated,
)

LOG_SECONDS = 5.0
"""How often what is new in a worker's log is stored: up to SHOWN_LOG_BYTES a commit."""
SHOWN_LOG_BYTES = 64 << 10
T = TypeVar("T")
TOLD = (DataReport, Progress, SampleChat, Note)
"""Worker events that clients see as they are."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Everything asked for is registered."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The worker left as asked."""


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Another attempt would end the same way."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt may get further."""

    why: Retry
    error: str


Ending = Succeeded | Paused | Hopeless | Again


@dataclass(frozen=True, slots=True)
class Parts:
    """What every attempt works with."""

    queue: JobQueue
    launcher: Launcher
    publisher: Publisher
    inboxes: Inboxes
    stop_grace_seconds: float
    validation_timeout_seconds: float


class Attempt:
    """Methods are in the order of an attempt's life. `pausing` is set when a client asks for a pause;
    `grace_seconds` is what the worker gets when the attempt is cancelled."""

    def __init__(self, job: Job, parts: Parts) -> None:
        self.job = job
        self.pausing = asyncio.Event()
        self.grace_seconds = parts.stop_grace_seconds
        self._parts = parts
        self._publications = Publications(job, queue=parts.queue, publisher=parts.publisher)
        self._sequence = 0
        self._validated = asyncio.Event()
        self._finished = False
        self._failure: Hopeless | None = None
        self._shown = LogTail()

    async def work(self) -> Ending:
        """Trains unless an earlier attempt has finished that, then delivers. Raises what keeps it from either."""
        publishing = asyncio.create_task(self._publications.run())
        try:
            newest = await patiently(lambda: self._parts.queue.newest_checkpoint(self.job), what="read a job")
            if isinstance(await self._unless_paused(self._publications.renew()), Paused):
                return Paused()
            trained = newest is not None and newest.last
            if not trained and (ending := await self._train(newest)) is not None:
                return ending
            return await self._unless_paused(self._deliver())
        finally:
            await _cancelled(publishing)
            await self._publications.close()

    async def _train(self, newest: Checkpoint | None) -> Ending | None:
        """None when training is complete."""
        with self._parts.inboxes.open(self.job.lease) as inbox:
            run = await self._unless_paused(self._launch(inbox, newest))
            if isinstance(run, Paused):
                return run
            self._publications.of(run)
            try:
                status = await self._attend(run, inbox)
            finally:
                await run.stop(grace_seconds=self.grace_seconds)
            await self._show_log()
            ending = self._verdict(run, status)
            if ending is not None:
                await self._publications.drained(seconds=self._parts.stop_grace_seconds)
            return ending

    async def _launch(self, inbox: Inbox, newest: Checkpoint | None) -> Run:
        if (run := await self._parts.launcher.attach(self.job, inbox)) is not None:
            return run
        registered = (newest.step, await self._parts.publisher.manifest(newest.version)) if newest else None
        if registered:
            inbox.goes_on_from = frozenset(file.sha256 for file in registered[1].files)
        return await self._parts.launcher.start(self.job, inbox, registered=registered)

    async def _unless_paused(self, work: Coroutine[Any, Any, T]) -> T | Paused:
        """The result of work that has no worker to stop, or Paused when a client asks for that first."""
        working, pausing = asyncio.ensure_future(work), asyncio.ensure_future(self.pausing.wait())
        try:
            await asyncio.wait({working, pausing}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else Paused()
        finally:
            await _cancelled(working, pausing)

    async def _attend(self, run: Run, inbox: Inbox) -> int:
        """Listens to the worker to its end, and stops it when it is asked to pause or validates for too long."""
        listening = asyncio.create_task(self._listen(inbox))
        helpers = [
            asyncio.create_task(work) for work in (self._pause(run), self._bound_validation(run), self._keep_log())
        ]
        exiting = asyncio.create_task(run.wait())
        try:
            errors: tuple[asyncio.Future[None], ...] = (self._publications.failed, listening)
            ends: set[asyncio.Future[Any]] = {exiting, *errors}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for early in errors:
                if early.done():
                    early.result()
            inbox.close()
            await listening
            return exiting.result()
        finally:
            await _cancelled(*helpers, exiting, listening)

    async def _listen(self, inbox: Inbox) -> None:
        async for batch in inbox.batches():
            for logged in batch:
                await self._heed(logged)
            news = [one.event for one in batch if isinstance(one.event, TOLD)]
            self._sequence = batch[-1].sequence
            await patiently(
                lambda news=news: self._parts.queue.append_events(  # type: ignore[misc]
                    self.job, news, worker_sequence=self._sequence
                ),
                what="store events",
            )

    async def _heed(self, logged: LoggedEvent) -> None:
        """What an event means for the attempt, beyond being told."""
        match logged.event:
            case Validated():
                self._validated.set()
            case Training():
                self._validated.set()
                await patiently(lambda: self._parts.queue.enter_running(self.job), what="store a state")
            case CheckpointSaved() as saved:
                self._publications.add(saved)
            case Failed(reason=reason, message=message):
                self._failure = Hopeless(reason, message)
            case Finished():
                self._finished = True

    async def _keep_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            await self._show_log()

    async def _show_log(self) -> None:
        """Lets the other trainers read what is new in the worker's log; failing to do so is no fault of the job's."""
        job = self.job
        try:
            tail = await self._parts.launcher.log(job.id, since=job.lease_epoch, max_bytes=SHOWN_LOG_BYTES)
            if tail is not None and tail != self._shown:
                await self._parts.queue.show_log(self.job, tail)
                self._shown = tail
        except (*PASSING, OSError) as error:
            log.warning(f"the log of {self.job.name} is not shown elsewhere: {error_line(error)}", job=self.job.id)

    async def _pause(self, run: Run) -> None:
        await self.pausing.wait()
        await run.stop(grace_seconds=self._parts.stop_grace_seconds)

    async def _bound_validation(self, run: Run) -> None:
        limit = self._parts.validation_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._validated.wait()
        except TimeoutError:
            self._failure = Hopeless(
                "VALIDATION_TIMEOUT",
                f"reading and rendering the data took longer than {limit:.0f} s and was ended; look for a chat "
                "template that never ends, split the data, or raise TUNELOOM_TRAINER_VALIDATION_TIMEOUT_SECONDS",
            )
            await run.stop(grace_seconds=0)

    def _verdict(self, run: Run, status: int) -> Ending | None:
        """What the worker's last words and its exit status mean; None: training is complete."""
        if status == EXIT_DONE and self._finished:
            return None
        if self._failure is not None:
            return self._failure
        if self.pausing.is_set():
            return Paused()
        if status == EXIT_STOPPED:
            return Again(Retry.STOPPED, "the worker was asked to stop")
        if status == EXIT_DISK_FULL:
            told = "no space left where it trains; free some, it goes on from its newest checkpoint"
            return Again(Retry.DISK_FULL, told)
        return Again(
            Retry.LOST_WORKER,
            f"the worker died with status {status} (-9 is often out of memory: lower batch_size or max_length); its "
            f"last words:\n{run.last_words()}",
        )

    async def _deliver(self) -> Ending:
        """Converts and, if asked, merges; what an earlier attempt has registered stays."""
        queue, publisher, job = self._parts.queue, self._parts.publisher, self.job
        await patiently(lambda: queue.enter_running(job), what="store a state")
        await self._publications.drained()
        result = job.result_version or await self._publications.result()
        if job.merge and not job.merged_version:
            merged = await publisher.merged(job, result)
            await patiently(lambda: queue.set_merged(job, merged), what="store a result")
        await self._publications.settled()
        if job.promote:
            await publisher.promote(job, result)
        return Succeeded()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
