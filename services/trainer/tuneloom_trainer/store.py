"""The trainer's metadata. Every public method is one short transaction.

A runner writes only through the lease it holds: each of its updates names the lease epoch and the states it may
leave, and changes no row when another claim came first. Cancelling and pausing are requested here by clients and
observed by the runner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tuneloom_common.bell import Bell
from tuneloom_common.database import Database, Transaction, utc
from tuneloom_common.errors import FailedPrecondition, NotFound
from tuneloom_common.ids import new_id
from tuneloom_trainer.jobs import (
    LEASED,
    MOVES,
    Artifact,
    Checkpoint,
    Job,
    JobEvent,
    JobState,
    StateChanged,
    read_body,
)
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.tables import checkpoints, job_events, jobs
from tuneloom_trainer.training_events import EventBody, Progress

REQUESTED = {JobState.CANCELLING: JobState.CANCELLED, JobState.PAUSING: JobState.PAUSED}


class LeaseLost(Exception):
    """Another runner claimed the job; whatever was being done must be dropped."""


class JobStore:
    """Jobs, events and checkpoints. `bell` rings after every change."""

    def __init__(
        self,
        database: Database,
        *,
        lease: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self.bell = Bell()
        self._lease = lease
        self._clock = clock

    # For clients

    async def create(
        self,
        *,
        base_model: str,
        base: Artifact,
        dataset: Artifact,
        output_model: str,
        recipe: str,
        spec: TrainingSpec,
        merge: bool,
        request_id: str = "",
    ) -> Job:
        """Queues a job; the same request_id returns the same job."""
        now = self._clock()
        async with self._database.write() as db:
            if request_id:
                found = (await db.execute(sa.select(jobs).where(jobs.c.request_id == request_id))).one_or_none()
                if found is not None:
                    return _to_job(found)
            job_id = new_id("job")
            await db.execute(
                jobs.insert().values(
                    id=job_id,
                    request_id=request_id or None,
                    base_model=base_model,
                    base_version=base.name,
                    base_digest=base.digest,
                    dataset_version=dataset.name,
                    dataset_digest=dataset.digest,
                    output_model=output_model,
                    recipe=recipe,
                    spec=spec.model_dump(mode="json"),
                    merge=merge,
                    state=JobState.QUEUED,
                    create_time=now,
                    update_time=now,
                )
            )
            await self._append(db, job_id, [StateChanged(state=JobState.QUEUED)])
            job = await _get(db, job_id)
        self.bell.ring()
        return job

    async def get(self, job_id: str) -> Job:
        async with self._database.read() as db:
            return await _get(db, job_id)

    async def list_jobs(self, *, before: int, limit: int) -> list[tuple[int, Job]]:
        """(sequence, job) below a sequence (0: from the newest), newest first."""
        query = sa.select(jobs).order_by(jobs.c.sequence.desc()).limit(limit)
        if before:
            query = query.where(jobs.c.sequence < before)
        async with self._database.read() as db:
            return [(row.sequence, _to_job(row)) for row in (await db.execute(query)).all()]

    async def events_after(self, job_id: str, sequence: int, *, limit: int = 500) -> list[JobEvent]:
        query = (
            sa.select(job_events)
            .where(job_events.c.job_id == job_id, job_events.c.sequence > sequence)
            .order_by(job_events.c.sequence)
            .limit(limit)
        )
        async with self._database.read() as db:
            return [
                JobEvent(row.sequence, utc(row.create_time), read_body(row.kind, row.body))
                for row in (await db.execute(query)).all()
            ]

    async def list_checkpoints(self, job_id: str, *, before: int, limit: int) -> list[Checkpoint]:
        """Checkpoints below a step (0: from the newest), newest first."""
        query = sa.select(checkpoints).where(checkpoints.c.job_id == job_id)
        if before:
            query = query.where(checkpoints.c.step < before)
        async with self._database.read() as db:
            await _get(db, job_id)
            rows = (await db.execute(query.order_by(checkpoints.c.step.desc()).limit(limit))).all()
        return [Checkpoint(row.job_id, row.step, row.version, row.loss, utc(row.create_time)) for row in rows]

    async def request_cancel(self, job_id: str) -> Job:
        """A job nobody runs ends at once; a running one when its runner notices."""
        return await self._request(job_id, running=JobState.CANCELLING, idle=JobState.CANCELLED, verb="cancel")

    async def request_pause(self, job_id: str) -> Job:
        """A job nobody runs pauses at once; a running one after it has saved a checkpoint."""
        return await self._request(job_id, running=JobState.PAUSING, idle=JobState.PAUSED, verb="pause")

    async def resume(self, job_id: str) -> Job:
        """Puts a paused job back into the queue."""
        async with self._database.write() as db:
            job = await _get(db, job_id, lock=True)
            if job.state is not JobState.PAUSED:
                raise FailedPrecondition(f"{job.name} is {job.state}; only a paused job can be resumed")
            await self._move(db, job, JobState.QUEUED, reason="resumed on request")
            job = await _get(db, job_id)
        self.bell.ring()
        return job

    async def _request(self, job_id: str, *, running: JobState, idle: JobState, verb: str) -> Job:
        async with self._database.write() as db:
            job = await _get(db, job_id, lock=True)
            target = running if job.state.leased else idle
            if job.state is target:
                return job
            if target not in MOVES[job.state]:
                raise FailedPrecondition(f"{job.name} is {job.state}; it is too late to {verb} it")
            await self._move(db, job, target, reason=f"{verb} requested")
            job = await _get(db, job_id)
        self.bell.ring()
        return job

    # For the runner

    async def claim(self) -> Job | None:
        """Takes the oldest queued job, or one whose runner has let its lease run out."""
        now = self._clock()
        expired = sa.and_(jobs.c.state.in_(LEASED), jobs.c.lease_expire_time < now)
        query = (
            sa.select(jobs)
            .where(sa.or_(jobs.c.state == JobState.QUEUED, expired))
            .order_by(jobs.c.sequence)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._database.write() as db:
            row = (await db.execute(query)).one_or_none()
            if row is None:
                return None
            job = _to_job(row)
            if job.state in (JobState.VALIDATING, JobState.RUNNING):
                await self._move(db, job, JobState.QUEUED, reason="its runner died; starting again")
                job = await _get(db, job.id)
            claimed = await db.execute(
                jobs.update()
                .where(jobs.c.id == job.id, jobs.c.lease_epoch == job.lease_epoch)
                .values(lease_epoch=job.lease_epoch + 1, lease_expire_time=now + self._lease)
            )
            if claimed.rowcount == 0:
                return None
            if job.state is JobState.QUEUED:
                await self._move(db, job, JobState.VALIDATING)
            job = await _get(db, job.id)
        self.bell.ring()
        return job

    async def heartbeat(self, job: Job) -> JobState:
        """Extends the lease and returns the state as clients want it; raises LeaseLost after another claim."""
        async with self._database.write() as db:
            await db.execute(_held(job).values(lease_expire_time=self._clock() + self._lease))
            current = await _get(db, job.id)
            if current.lease_epoch != job.lease_epoch:
                raise LeaseLost(job.id)
            return current.state

    async def append_events(self, job: Job, events: Sequence[EventBody], *, worker_sequence: int) -> None:
        """Stores worker events once: what they say and how far the worker's log was read, in one transaction."""
        values: dict[str, Any] = {"worker_sequence": worker_sequence}
        for body in events:
            if isinstance(body, Progress):
                values["progress"] = body.model_dump(mode="json")
        async with self._database.write() as db:
            await self._require(db, _held(job).values(**values, update_time=self._clock()), job)
            await self._append(db, job.id, events)
        self.bell.ring()

    async def enter_running(self, job: Job) -> None:
        """VALIDATING -> RUNNING; a job that was asked to stop meanwhile stays as it is."""
        async with self._database.write() as db:
            current = await _get(db, job.id, lock=True)
            if current.lease_epoch != job.lease_epoch or not current.state.leased:
                raise LeaseLost(job.id)
            if current.state is JobState.VALIDATING:
                await self._move(db, current, JobState.RUNNING)
        self.bell.ring()

    async def add_checkpoint(self, job: Job, *, step: int, version: str, loss: float) -> None:
        """Remembers a registered checkpoint; registering the same step again replaces it."""
        async with self._database.write() as db:
            await self._require(db, _held(job).values(update_time=self._clock()), job)
            same = sa.and_(checkpoints.c.job_id == job.id, checkpoints.c.step == step)
            await db.execute(checkpoints.delete().where(same))
            await db.execute(
                checkpoints.insert().values(
                    job_id=job.id, step=step, version=version, loss=loss, create_time=self._clock()
                )
            )

    async def set_results(self, job: Job, **versions: str) -> None:
        """Stores result_version or merged_version as soon as they are registered."""
        async with self._database.write() as db:
            await self._require(db, _held(job).values(**versions, update_time=self._clock()), job)

    async def finish(self, job: Job, state: JobState, *, error: str = "", reason: str = "") -> None:
        """Leaves the leased states: to a final one, to PAUSED, or back to QUEUED."""
        async with self._database.write() as db:
            current = await _get(db, job.id, lock=True)
            if current.lease_epoch != job.lease_epoch or not current.state.leased:
                raise LeaseLost(job.id)
            if state not in MOVES[current.state]:  # a request came in between: it wins
                state = REQUESTED.get(current.state, state)
            await self._move(db, current, state, reason=error, error=error, error_reason=reason)
        self.bell.ring()

    async def requeue_crashed(self, job: Job, error: str) -> None:
        """Back to QUEUED after its worker died on its own, and counted."""
        async with self._database.write() as db:
            await self._require(db, _held(job).values(crash_count=jobs.c.crash_count + 1), job)
        await self.finish(job, JobState.QUEUED, error=error)

    async def _require(self, db: Transaction, statement: sa.Update, job: Job) -> None:
        if (await db.execute(statement)).rowcount == 0:
            raise LeaseLost(job.id)

    async def _move(
        self,
        db: Transaction,
        job: Job,
        state: JobState,
        *,
        reason: str = "",
        error: str = "",
        error_reason: str = "",
    ) -> None:
        """The only writer of `state`: checks the table of moves and compares-and-sets."""
        if state not in MOVES[job.state]:
            raise FailedPrecondition(f"{job.name} cannot go from {job.state} to {state}")
        now = self._clock()
        values: dict[str, Any] = {"state": state, "update_time": now}
        if state is JobState.FAILED:
            values.update(error=error, error_reason=error_reason)
        if state.final:
            values["end_time"] = now
        await self._require(
            db, jobs.update().where(jobs.c.id == job.id, jobs.c.state == job.state).values(**values), job
        )
        await self._append(db, job.id, [StateChanged(state=state, reason=reason)])

    async def _append(self, db: Transaction, job_id: str, events: Sequence[EventBody]) -> None:
        if not events:
            return
        last = (await db.execute(sa.select(jobs.c.event_sequence).where(jobs.c.id == job_id))).scalar_one()
        now = self._clock()
        rows = [
            {
                "job_id": job_id,
                "sequence": sequence,
                "kind": body.kind,
                "body": body.model_dump(mode="json"),
                "create_time": now,
            }
            for sequence, body in enumerate(events, start=last + 1)
        ]
        await db.execute(job_events.insert(), rows)
        await db.execute(jobs.update().where(jobs.c.id == job_id).values(event_sequence=last + len(rows)))


def _held(job: Job, states: Collection[JobState] = LEASED) -> sa.Update:
    """An update that applies only under the newest claim, in a state a runner may write in."""
    return jobs.update().where(jobs.c.id == job.id, jobs.c.lease_epoch == job.lease_epoch, jobs.c.state.in_(states))


async def _get(db: Transaction, job_id: str, *, lock: bool = False) -> Job:
    """`lock` holds off other writers to the end of the transaction, where beginning one does not (PostgreSQL)."""
    query = sa.select(jobs).where(jobs.c.id == job_id)
    row = (await db.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound(f"trainingJobs/{job_id} does not exist; 'tuneloom jobs list' shows the jobs there are")
    return _to_job(row)


def _to_job(row: Any) -> Job:
    return Job(
        id=row.id,
        base_model=row.base_model,
        base=Artifact(row.base_version, row.base_digest),
        dataset=Artifact(row.dataset_version, row.dataset_digest),
        output_model=row.output_model,
        recipe=row.recipe,
        spec=TrainingSpec.stored(row.spec),
        merge=row.merge,
        state=JobState(row.state),
        error=row.error,
        error_reason=row.error_reason,
        progress=Progress.model_validate(row.progress) if row.progress else None,
        result_version=row.result_version,
        merged_version=row.merged_version,
        lease_epoch=row.lease_epoch,
        crash_count=row.crash_count,
        worker_sequence=row.worker_sequence,
        create_time=utc(row.create_time),
        update_time=utc(row.update_time),
        end_time=utc(row.end_time) if row.end_time else None,
    )
