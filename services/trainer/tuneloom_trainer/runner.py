"""Runs jobs: claim by lease, launch the worker, follow its events, publish, finish.

Each attempt is load (claim) -> work (no transaction open) -> apply under the lease. A runner that lost its lease
kills its worker and writes nothing: the store and the registry would both refuse it.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tuneloom_common import children
from tuneloom_common.errors import TuneloomError, Unavailable
from tuneloom_trainer import mapping
from tuneloom_trainer.events import EventTail
from tuneloom_trainer.jobs import CheckpointRegistered, Job, JobEvent, JobState
from tuneloom_trainer.launcher import Launcher
from tuneloom_trainer.publishing import Publisher
from tuneloom_trainer.registry_client import RegistryClient
from tuneloom_trainer.store import JobStore, LeaseLost
from tuneloom_trainer.training_events import DataReport, EventBody, Note, Progress, SampleChat
from tuneloom_trainer.worker.protocol import (
    EXIT_DONE,
    EXIT_STOPPED,
    CheckpointSaved,
    Failed,
    Finished,
    LoggedEvent,
    Training,
)

POLL_SECONDS = 1.0
TAIL_SECONDS = 0.1
log = structlog.get_logger()


@dataclass(slots=True)
class _Attempt:
    """What one run of a worker has come to so far."""

    job: Job
    worker_sequence: int
    failure: tuple[str, str] | None = None
    finished: bool = False
    wanted: JobState | None = None
    live: list[asyncio.Task[None]] = field(default_factory=list)
    result: asyncio.Task[str] | None = None


class Runner:
    """A loop per slot; `lease_seconds` must match the store's lease."""

    def __init__(
        self,
        *,
        store: JobStore,
        launcher: Launcher,
        publisher: Publisher,
        registry: RegistryClient,
        slots: int,
        lease_seconds: float,
        stop_grace_seconds: float,
        max_attempts: int,
    ) -> None:
        self._store = store
        self._launcher = launcher
        self._publisher = publisher
        self._registry = registry
        self._slots = slots
        self._heartbeat_seconds = lease_seconds / 4
        self._grace_seconds = stop_grace_seconds
        self._max_attempts = max_attempts

    async def run(self) -> None:
        """Works until cancelled; then asks the workers to save and puts their jobs back into the queue."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._slots):
                slots.create_task(self._work())

    async def _work(self) -> None:
        while True:
            rings = self._store.bell.rings
            try:
                if job := await self._store.claim():
                    await self.process(job)
                    continue
            except SQLAlchemyError:  # a full or busy disk: the lease runs out and the job is claimed again
                log.exception("the database failed; trying again")
            await self._store.bell.wait(POLL_SECONDS, since=rings)

    async def process(self, job: Job) -> None:
        """Carries one claimed job as far as this attempt gets. Never raises for a job's own failure."""
        log.info(f"attempt {job.lease_epoch} of {job.name}", job=job.id, state=job.state)
        try:
            if job.state is JobState.CANCELLING:
                await self._store.finish(job, JobState.CANCELLED)
                await self._launcher.clean(job)
            elif job.state is JobState.PAUSING:
                await self._store.finish(job, JobState.PAUSED)
            else:
                await self._attempt(job)
        except LeaseLost:
            log.warning("the lease is lost, dropping the work", job=job.id, epoch=job.lease_epoch)
        except Unavailable as error:  # the same work may succeed later
            log.warning(f"{job.name} goes back into the queue: {error}", job=job.id)
            await asyncio.sleep(POLL_SECONDS)
            with suppress(LeaseLost):
                await self._store.finish(job, JobState.QUEUED, error=error.message)
        except TuneloomError as error:
            await self._fail(job, error.reason, error.message)
        except OSError as error:
            await self._fail(job, "DISK", f"{error}; mend that and submit the job again")
        except (ValueError, LookupError, TypeError) as error:  # one job's trouble must not end the others
            log.exception("the worker does not keep the protocol", job=job.id)
            await self._fail(job, "WORKER_PROTOCOL", f"the worker does not keep the protocol: {error!r}")

    async def _attempt(self, job: Job) -> None:
        heartbeat: asyncio.Task[None] | None = None
        process: children.Child | None = None
        attempt = _Attempt(job, worker_sequence=0)  # every attempt has an event log of its own
        try:
            heartbeat = asyncio.create_task(self._keep_lease(attempt))
            await self._guarded(heartbeat, self._launcher.prepare(job, restore=await self._newest(job)))
            process = await self._launcher.start(job)
            await self._guarded(heartbeat, self._follow(attempt, process))
            await self._guarded(heartbeat, self._conclude(attempt, process.returncode))
        except asyncio.CancelledError:
            if process is not None:
                await process.stop(grace_seconds=self._grace_seconds)
            with suppress(LeaseLost):  # it ended just now, or somebody else has it
                await self._store.finish(job, JobState.QUEUED, error="the trainer is shutting down")
            raise
        finally:
            if process is not None:
                await process.stop(grace_seconds=0)
            helpers = [task for task in (heartbeat, attempt.result, *attempt.live) if task is not None]
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _guarded(self, heartbeat: asyncio.Task[None], work: Any) -> None:
        """Awaits work, unless the lease is lost first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({heartbeat, task}, return_when=asyncio.FIRST_COMPLETED)
            if heartbeat.done() and not task.done():
                heartbeat.result()
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})  # nothing is written behind our back

    async def _keep_lease(self, attempt: _Attempt) -> None:
        """Extends the lease until the job is out of our hands, and notes what clients asked for."""
        while (state := await self._store.heartbeat(attempt.job)).leased:
            if state in (JobState.CANCELLING, JobState.PAUSING):
                attempt.wanted = state
            await self._store.bell.wait(self._heartbeat_seconds)

    async def _follow(self, attempt: _Attempt, process: children.Child) -> None:
        """Stores the worker's events until it has exited and its log is read to the end."""
        tail = EventTail(self._launcher.events_path(attempt.job), after=attempt.worker_sequence)
        exited = asyncio.create_task(process.wait())
        asked_at: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            done = exited.done()
            for event in tail.read():
                await self._store_event(attempt, event)
            if done:
                return
            if attempt.wanted and asked_at is None:
                process.signal(signal.SIGTERM)
                asked_at = loop.time()
            if asked_at is not None and loop.time() - asked_at > self._grace_seconds:
                process.signal(signal.SIGKILL)
            await asyncio.wait({exited}, timeout=TAIL_SECONDS)

    async def _store_event(self, attempt: _Attempt, logged: LoggedEvent) -> None:
        job = attempt.job
        stored: list[EventBody] = []
        match logged.event:
            case DataReport() | Progress() | SampleChat() | Note() as told:
                mapping.to_event(job.id, JobEvent(logged.sequence, job.create_time, told))  # refuse what is untellable
                stored.append(told)
            case Training():
                await self._store.enter_running(job)
            case CheckpointSaved() as saved:
                stored.append(await self._publish(attempt, saved))
            case Failed() as failed:
                attempt.failure = (failed.reason, failed.message)
            case Finished():
                attempt.finished = True
        await self._store.append_events(job, stored, worker_sequence=logged.sequence)

    async def _publish(self, attempt: _Attempt, saved: CheckpointSaved) -> CheckpointRegistered:
        job, step = attempt.job, saved.step
        version = await self._publisher.checkpoint(job, self._launcher.run_dir(job) / saved.path, step=step)
        await self._store.add_checkpoint(job, step=step, version=version, loss=saved.loss)
        if saved.last:  # sample chats may follow; the adapter need not wait for them
            attempt.result = asyncio.create_task(self._register_result(job, version))
        attempt.live.append(asyncio.create_task(self._go_live(job, version, step)))
        return CheckpointRegistered(step=step, version=version, loss=saved.loss)

    async def _go_live(self, job: Job, version: str, step: int) -> None:
        try:
            await self._publisher.live_model(job, version, step=step)
        except TuneloomError as error:
            log.warning(f"{job.id}@{step} cannot be chatted with: {error}", job=job.id, step=step)

    async def _conclude(self, attempt: _Attempt, status: int | None) -> None:
        """Decides from the worker's last words and its exit status what becomes of the job."""
        job = attempt.job
        cancelled = attempt.wanted is JobState.CANCELLING
        if cancelled or (attempt.wanted and not attempt.finished):
            await self._store.finish(job, JobState.CANCELLED if cancelled else JobState.PAUSED)
            if cancelled:
                await self._launcher.clean(job)
        elif status == EXIT_DONE and attempt.finished:
            await self._deliver(attempt)
        elif attempt.failure:
            await self._fail(job, *attempt.failure)
        elif status == EXIT_STOPPED:
            await self._store.finish(job, JobState.QUEUED, error="the worker was asked to stop")
        elif job.crash_count + 1 < self._max_attempts:
            log.warning(f"the worker died with status {status}, trying again", job=job.id)
            await self._store.requeue_crashed(job, f"the worker died with status {status}; starting again")
        else:
            await self._fail(
                job,
                "WORKER_CRASHED",
                f"the worker died {job.crash_count + 1} times, last with status {status} (-9 is often out of memory: "
                f"lower batch_size or max_length); its last words:\n{self._launcher.log_tail(job)}",
            )

    async def _deliver(self, attempt: _Attempt) -> None:
        """Converts and, if asked, merges; then the job has succeeded."""
        job = attempt.job
        if attempt.result is None:
            attempt.result = asyncio.create_task(self._register_result(job, await self._newest_name(job)))
        result = await attempt.result
        await self._tell(attempt, f"registered {result}")
        if job.merge:
            merged = await self._publisher.merged(job, result)
            await self._store.set_results(job, merged_version=merged)
            await self._tell(attempt, f"merged, proved and registered {merged}")
        await asyncio.gather(*attempt.live)
        await self._store.finish(job, JobState.SUCCEEDED)
        await self._launcher.clean(job)

    async def _register_result(self, job: Job, checkpoint: str) -> str:
        result = await self._publisher.result(job, checkpoint)
        await self._store.set_results(job, result_version=result)
        return result

    async def _tell(self, attempt: _Attempt, text: str) -> None:
        job = await self._store.get(attempt.job.id)
        await self._store.append_events(attempt.job, [Note(text=text)], worker_sequence=job.worker_sequence)

    async def _fail(self, job: Job, reason: str, message: str) -> None:
        log.warning(f"{job.name} failed: {message}", job=job.id, reason=reason)
        try:
            await self._store.finish(job, JobState.FAILED, error=message, reason=reason)
        except LeaseLost:
            return

    async def _newest_name(self, job: Job) -> str:
        newest = await self._store.list_checkpoints(job.id, before=0, limit=1)
        return newest[0].version if newest else ""

    async def _newest(self, job: Job) -> Any:
        newest = await self._store.list_checkpoints(job.id, before=0, limit=1)
        if not newest:
            return None
        return newest[0].step, await self._registry.manifest_of(newest[0].version)
