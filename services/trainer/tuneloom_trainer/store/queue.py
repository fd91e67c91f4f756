"""Jobs as runners see them: claimed by lease, written under it, ended or put back.

A database may lose its connection after a commit and before its answer, and then the same call comes again: what is
told to watchers is told by the first alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction
from tuneloom_common.notifier import Notifier
from tuneloom_common.queue import LeasedQueue, Retry
from tuneloom_trainer.jobs import LEASED, MOVES, Checkpoint, CheckpointRegistered, Job, JobState, LogTail
from tuneloom_trainer.store.logs import write_log
from tuneloom_trainer.store.rows import QUEUED, append, move, read_job, to_checkpoint
from tuneloom_trainer.tables import checkpoints, jobs
from tuneloom_trainer.training_events import EventBody, Note, Progress

REQUESTED = {JobState.CANCELLING: JobState.CANCELLED, JobState.PAUSING: JobState.PAUSED}


class JobQueue:
    """Every write raises LeaseLost after another claim, and changes nothing."""

    def __init__(
        self,
        database: Database,
        *,
        lease: timedelta,
        max_attempts: int,
        notifier: Notifier,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._clock = clock or (lambda: datetime.now(UTC))
        self._queue = LeasedQueue(
            jobs, waiting=[JobState.QUEUED], held=LEASED, lease=lease, max_attempts=max_attempts, clock=clock
        )

    async def claim(self, mine: Collection[str] = ()) -> Job | None:
        """Takes the oldest queued job, or one whose runner has let its lease run out."""
        async with self._database.read() as db:
            if await self._queue.next(db, mine=mine) is None:
                return None
        async with self._database.write() as db:
            row = await self._queue.next(db, mine=mine, lock=True)
            if row is None:
                return None
            await self._queue.take(db, row, worker_sequence=0)
            job = await read_job(db, row.id)
            if job.state in (JobState.VALIDATING, JobState.RUNNING):
                job = await move(db, job, JobState.QUEUED, now=self._clock(), reason="its runner died; starting again")
            if job.state is JobState.QUEUED:
                job = await move(db, job, JobState.VALIDATING, now=self._clock())
        self._notifier.notify(job.name)
        return job

    async def heartbeat(self, job: Job) -> JobState:
        """Extends the lease; returns the state as clients want it."""
        async with self._database.write() as db:
            await self._queue.heartbeat(db, job.lease)
            return (await read_job(db, job.id)).state

    async def append_events(self, job: Job, events: Sequence[EventBody], *, worker_sequence: int) -> None:
        """Stores worker events once: what they say and how far the worker was heard, in one transaction."""
        values: dict[str, Any] = {}
        for body in events:
            if isinstance(body, Progress):
                values["progress"] = body.model_dump(mode="json")
        async with self._writing(job) as db:
            news = jobs.update().where(jobs.c.id == job.id, jobs.c.worker_sequence < worker_sequence)
            if (await db.execute(news.values(worker_sequence=worker_sequence, **values))).rowcount:
                await append(db, job.id, events, now=self._clock())

    async def enter_running(self, job: Job) -> None:
        """VALIDATING -> RUNNING, with everything it needs at hand; a job that was asked to stop stays as it is."""
        async with self._writing(job, unavailable_since=None) as db:
            current = await read_job(db, job.id, lock=True)
            if current.state is JobState.VALIDATING:
                await move(db, current, JobState.RUNNING, now=self._clock())

    async def add_checkpoint(self, job: Job, checkpoint: Checkpoint) -> None:
        """Remembers and tells of a registered checkpoint; registering the same step again replaces it.

        Only a later step than any before is progress.
        """
        newest = await self.newest_checkpoint(job)
        async with self._writing(job, advanced=newest is None or checkpoint.step > newest.step) as db:
            same = sa.and_(checkpoints.c.job_id == job.id, checkpoints.c.step == checkpoint.step)
            before = await db.scalar(sa.select(checkpoints.c.version).where(same))
            await db.execute(checkpoints.delete().where(same))
            await db.execute(
                checkpoints.insert().values(
                    job_id=job.id,
                    step=checkpoint.step,
                    version=checkpoint.version,
                    loss=checkpoint.loss,
                    lease_epoch=job.lease_epoch,
                    last=checkpoint.last,
                    create_time=self._clock(),
                )
            )
            if before != checkpoint.version:
                told = CheckpointRegistered(step=checkpoint.step, version=checkpoint.version, loss=checkpoint.loss)
                await append(db, job.id, [told], now=self._clock())

    async def newest_checkpoint(self, job: Job) -> Checkpoint | None:
        newest = await self.checkpoints(job, limit=1)
        return newest[0] if newest else None

    async def checkpoints(self, job: Job, *, before: int = 0, limit: int = 100) -> list[Checkpoint]:
        """Registered ones below a step (0: from the newest), newest first."""
        query = sa.select(checkpoints).where(checkpoints.c.job_id == job.id).order_by(checkpoints.c.step.desc())
        if before:
            query = query.where(checkpoints.c.step < before)
        async with self._database.read() as db:
            rows = (await db.execute(query.limit(limit))).all()
        return [to_checkpoint(row) for row in rows]

    async def set_result(self, job: Job, version: str) -> None:
        """Stores the registered adapter (or model)."""
        await self._set(job, jobs.c.result_version, version, told=f"registered {version}")

    async def set_merged(self, job: Job, version: str) -> None:
        """Stores the registered merged model."""
        await self._set(job, jobs.c.merged_version, version, told=f"merged, proved and registered {version}")

    async def show_log(self, job: Job, tail: LogTail) -> None:
        """Lets every trainer read the end of the job's log."""
        async with self._database.write() as db:
            await self._queue.hold(db, job.lease)
            await write_log(db, job.id, tail)

    async def finish(self, job: Job, state: JobState, *, error: str = "", reason: str = "") -> Job:
        """Leaves the leased states: to a final one or to PAUSED. A request that came in between wins."""
        async with self._writing(job) as db:
            return await self._leave(db, job, state, error=error, reason=reason)

    async def put_back(self, job: Job, why: Retry, error: str) -> Job:
        """Back into the queue after an attempt without an end; fails the job when that was the last."""
        async with self._writing(job) as db:
            again = await self._queue.retry(db, job.lease, why)
            if again is None:
                gave_up, told = _gave_up(why, await read_job(db, job.id))
                ended = await self._leave(db, job, JobState.FAILED, error=f"{told}: {error}", reason=gave_up)
            else:
                await db.execute(jobs.update().where(jobs.c.id == job.id).values(**again))
                ended = await self._leave(db, job, JobState.QUEUED, error=error)
        self._notifier.notify(QUEUED)
        return ended

    async def _set(self, job: Job, column: sa.Column[Any], version: str, *, told: str) -> None:
        async with self._writing(job, advanced=True) as db:
            other = sa.or_(column.is_(None), column != version)
            changed = jobs.update().where(jobs.c.id == job.id, other).values({column: version})
            if (await db.execute(changed)).rowcount:
                await append(db, job.id, [Note(text=told)], now=self._clock())

    async def _leave(self, db: Transaction, job: Job, state: JobState, *, error: str, reason: str = "") -> Job:
        current = await read_job(db, job.id, lock=True)
        if state not in MOVES[current.state]:
            state = REQUESTED.get(current.state, state)
        return await move(db, current, state, now=self._clock(), reason=error, error_reason=reason)

    @asynccontextmanager
    async def _writing(self, job: Job, *, advanced: bool = False, **values: Any) -> AsyncIterator[Transaction]:
        """A transaction under the job's lease; `advanced` gives the job its budget of tries back."""
        mine = self._queue.advanced(job.lease) if advanced else self._queue.held(job.lease)
        async with self._database.write() as db:
            await self._queue.require(db, mine.values(**values, update_time=self._clock()))
            yield db
        self._notifier.notify(job.name)


def _gave_up(why: Retry, job: Job) -> tuple[str, str]:
    """Reason and beginning of the error of a job that is not tried again."""
    if why is Retry.LOST_WORKER:
        return "WORKER_CRASHED", f"its worker was lost {job.failed_attempts + 1} times without getting further"
    return "UNAVAILABLE", "what it needs has been away for too long"
