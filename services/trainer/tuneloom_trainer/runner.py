"""Runs jobs: claims them by lease, attends to each attempt, applies what came of it.

A runner that lost its lease kills its worker and writes nothing: the store and the registry would both refuse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tuneloom_common.attempts import PASSING, Slots, patiently, while_held
from tuneloom_common.disks import is_full
from tuneloom_common.errors import FailedPrecondition, NotFound, TuneloomError
from tuneloom_common.notifier import Notifier
from tuneloom_common.patience import FIRST_PAUSE_SECONDS, error_line
from tuneloom_common.queue import LeaseLost, Retry
from tuneloom_trainer.attempts import Again, Attempt, Ending, Hopeless, Parts, Paused, Succeeded
from tuneloom_trainer.jobs import Job, JobState
from tuneloom_trainer.store import JobStore
from tuneloom_trainer.store.rows import IDLE_CANCELLED, QUEUED, requests_of
from tuneloom_trainer.worker.protocol import NOT_AN_EVENT

APPLY_PATIENCE_SECONDS = 120.0
SWEEP_SECONDS = 30.0
log = structlog.get_logger()


class CancelRequested(Exception):
    """A client asked the job to stop for good."""


class Runner:
    """`lease_seconds` must match the queue's lease."""

    def __init__(self, *, store: JobStore, parts: Parts, notifier: Notifier, slots: int, lease_seconds: float) -> None:
        self._store = store
        self._parts = parts
        self._queue = parts.queue
        self._notifier = notifier
        self._heartbeat_seconds = lease_seconds / 4
        self._slots = Slots(
            count=slots,
            claim=parts.queue.claim,
            process=self.process,
            id_of=lambda job: job.id,
            notifier=notifier,
            topic=QUEUED,
        )

    async def run(self) -> None:
        """Works until cancelled; then asks the workers to save and puts their jobs back into the queue."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._slots.run())
            tasks.create_task(self._sweep())

    async def process(self, job: Job) -> None:
        """Carries one claimed job as far as this attempt gets. Never raises for a job's own failure."""
        log.info(f"attempt {job.lease_epoch} of {job.name}", job=job.id, state=job.state)
        try:
            if job.state is JobState.CANCELLING:
                await self._cancelled(job)
            elif job.state is JobState.PAUSING:
                await self._apply(job, Paused())
            else:
                await self._apply(job, await self._attempt(job))
        except LeaseLost:
            log.warning("the lease is lost, dropping the work", job=job.id, epoch=job.lease_epoch)
        except CancelRequested:
            await self._cancelled(job)
        except asyncio.CancelledError:
            await self._shut_down(job)
            raise

    async def _attempt(self, job: Job) -> Ending:
        attempt = Attempt(job, self._parts)
        try:
            return await while_held(attempt.work(), self._keep(attempt))
        except PASSING as error:
            return Again(Retry.UNAVAILABLE, error_line(error))
        except (TuneloomError, OSError) as error:
            if is_full(error):
                return Again(Retry.DISK_FULL, f"{error}; it goes on when there is space")
            if getattr(error, "reason", "") == "LEASE_LOST":  # the registry's word; ours is the lease itself
                return Again(Retry.UNAVAILABLE, f"the registry knows a later attempt than this trainer: {error}")
            if isinstance(error, TuneloomError):
                return Hopeless(error.reason, error.message)
            return Hopeless("DISK", f"{error}; mend that and submit the job again")
        except NOT_AN_EVENT as error:  # one job's trouble must not end the others
            log.exception("the worker does not keep the protocol", job=job.id)
            return Hopeless("WORKER_PROTOCOL", f"the worker does not keep the protocol: {error!r:.2000}")

    async def _keep(self, attempt: Attempt) -> None:
        """Extends the lease and notices what clients ask for, for as long as the attempt lasts."""
        try:
            with self._notifier.subscribe(requests_of(attempt.job.id)) as requests:
                while True:
                    state = await self._beat(attempt.job)
                    if state is JobState.CANCELLING:
                        raise CancelRequested
                    if state is JobState.PAUSING:
                        attempt.pausing.set()
                    await requests.wait(self._heartbeat_seconds)
        except (LeaseLost, CancelRequested):
            attempt.grace_seconds = 0  # nobody wants what the worker would save
            raise

    async def _beat(self, job: Job) -> JobState:
        """The job's state, with the lease extended. A database that is away is waited out: nobody can claim there."""
        while True:
            try:
                return await self._queue.heartbeat(job)
            except PASSING as error:
                log.warning(f"cannot extend a lease, trying again: {error_line(error)}", job=job.id)
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def _apply(self, job: Job, ending: Ending) -> None:
        match ending:
            case Succeeded():
                await self._store_end(lambda: self._queue.finish(job, JobState.SUCCEEDED))
                await self._parts.launcher.clean(job.id)
            case Paused():
                await self._store_end(lambda: self._queue.finish(job, JobState.PAUSED))
            case Hopeless(reason, message):
                log.warning(f"{job.name} failed: {message}", job=job.id, reason=reason)
                await self._store_end(lambda: self._queue.finish(job, JobState.FAILED, error=message, reason=reason))
                await self._parts.launcher.clean(job.id)
            case Again(why, error):
                log.warning(f"{job.name} goes back into the queue: {error}", job=job.id, why=why)
                await self._store_end(lambda: self._queue.put_back(job, why, error))

    async def _cancelled(self, job: Job) -> None:
        """A registry that is away does not hold up a cancel: the sweep tells it of jobs whose files are still here."""
        heard = await self._stop_builds(job)
        await self._store_end(lambda: self._queue.finish(job, JobState.CANCELLED))
        if heard:
            await self._parts.launcher.clean(job.id)

    async def _stop_builds(self, job: Job) -> bool:
        """Whether the registry has heard of it."""
        try:
            await self._parts.publisher.cancel(job)
        except FailedPrecondition as error:  # it knows a later attempt than this store does
            log.warning(f"the builds of {job.name} are not ours to cancel: {error}", job=job.id)
        except TuneloomError as error:
            log.warning(f"the builds of {job.name} are not cancelled yet: {error}", job=job.id)
            return False
        return True

    async def _shut_down(self, job: Job) -> None:
        try:
            await self._queue.put_back(job, Retry.STOPPED, "the trainer is shutting down")
        except (LeaseLost, *PASSING) as error:  # it ended just now, somebody else has it, or the lease will run out
            log.info(f"{job.name} was not put back: {error!r}"[:200], job=job.id)

    async def _store_end(self, call: Callable[[], Awaitable[Job]]) -> None:
        await patiently(call, what="end an attempt", seconds=APPLY_PATIENCE_SECONDS)

    async def _sweep(self) -> None:
        """Cleans up after jobs that ended while no runner held them, such as one cancelled while paused."""
        with self._notifier.subscribe(IDLE_CANCELLED) as cancelled:
            while True:
                try:
                    for job_id in await self._parts.launcher.kept():
                        await self._sweep_up(job_id)
                except (TuneloomError, OSError) as error:
                    log.warning(f"cannot clean up, trying again later: {error_line(error)}")
                await cancelled.wait(SWEEP_SECONDS)

    async def _sweep_up(self, job_id: str) -> None:
        try:
            job = await self._store.get(job_id)
        except NotFound:  # of another store: not ours to remove
            return
        if job.state.final and (job.state is not JobState.CANCELLED or await self._stop_builds(job)):
            await self._parts.launcher.clean(job_id)
