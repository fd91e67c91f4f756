"""Jobs as clients see them: created, listed, watched, asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction, utc
from tuneloom_common.errors import FailedPrecondition, InvalidArgument
from tuneloom_common.ids import new_id
from tuneloom_common.notifier import Notifier
from tuneloom_trainer.jobs import MOVES, Artifact, Checkpoint, Job, JobEvent, JobState, LogTail, StateChanged, read_body
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.store.logs import read_log
from tuneloom_trainer.store.rows import (
    IDLE_CANCELLED,
    QUEUED,
    append,
    move,
    read_job,
    requests_of,
    to_checkpoint,
    to_job,
)
from tuneloom_trainer.tables import checkpoints, job_events, jobs


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is stored of a request. `request` is what the client asked for, to recognise the same request again."""

    base_model: str
    base: Artifact
    dataset: Artifact
    output_model: str
    recipe: str
    spec: TrainingSpec
    merge: bool
    promote: bool = True
    request: Mapping[str, Any] | None = None
    request_id: str = ""


class JobStore:
    """Tells the notifier of every change, under the job's name."""

    def __init__(
        self,
        database: Database,
        *,
        notifier: Notifier | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self.notifier = notifier or Notifier()
        self._clock = clock

    async def create(self, new: NewJob) -> Job:
        """Queues a job; the same request_id returns the same job."""
        job_id, now = new_id("job"), self._clock()
        async with self._database.write() as db:
            made = await _made_by(db, new.request_id, new.request)
            if made is None and not await db.insert_new(jobs, _row(new, job_id, now), key="request_id"):
                made = await _made_by(db, new.request_id, new.request)  # the same request, at the same time
            if made is not None:
                return made
            await append(db, job_id, [StateChanged(state=JobState.QUEUED)], now=now)
            job = await read_job(db, job_id)
        self.notifier.notify(QUEUED)
        return job

    async def made_by(self, request_id: str, request: Mapping[str, Any]) -> Job | None:
        """The job that this request created before, if any; raises InvalidArgument when the id was another's."""
        async with self._database.read() as db:
            return await _made_by(db, request_id, request)

    async def get(self, job_id: str) -> Job:
        async with self._database.read() as db:
            return await read_job(db, job_id)

    async def log(self, job_id: str) -> LogTail | None:
        """The end of its log as its runner has shown it; None when none has."""
        async with self._database.read() as db:
            return await read_log(db, job_id)

    async def list_jobs(self, *, before: int, limit: int) -> list[tuple[int, Job]]:
        """(sequence, job) below a sequence (0: from the newest), newest first."""
        query = sa.select(jobs).order_by(jobs.c.sequence.desc()).limit(limit)
        if before:
            query = query.where(jobs.c.sequence < before)
        async with self._database.read() as db:
            return [(row.sequence, to_job(row)) for row in (await db.execute(query)).all()]

    async def events_after(self, job_id: str, sequence: int, *, limit: int = 500) -> list[JobEvent]:
        query = (
            sa.select(job_events)
            .where(job_events.c.job_id == job_id, job_events.c.sequence > sequence)
            .order_by(job_events.c.sequence)
            .limit(limit)
        )
        async with self._database.read() as db:
            rows = (await db.execute(query)).all()
        return [JobEvent(row.sequence, utc(row.create_time), read_body(row.kind, row.body)) for row in rows]

    async def list_checkpoints(self, job_id: str, *, before: int, limit: int) -> list[Checkpoint]:
        """Checkpoints below a step (0: from the newest), newest first."""
        query = sa.select(checkpoints).where(checkpoints.c.job_id == job_id)
        if before:
            query = query.where(checkpoints.c.step < before)
        async with self._database.read() as db:
            await read_job(db, job_id)
            rows = (await db.execute(query.order_by(checkpoints.c.step.desc()).limit(limit))).all()
        return [to_checkpoint(row) for row in rows]

    async def request_cancel(self, job_id: str) -> Job:
        """A job nobody runs ends at once; a running one when its runner notices."""
        return await self._request(job_id, running=JobState.CANCELLING, idle=JobState.CANCELLED, verb="cancel")

    async def request_pause(self, job_id: str) -> Job:
        """A job nobody runs pauses at once; a running one after it has saved a checkpoint."""
        return await self._request(job_id, running=JobState.PAUSING, idle=JobState.PAUSED, verb="pause")

    async def resume(self, job_id: str) -> Job:
        """Puts a paused job back into the queue."""
        async with self._database.write() as db:
            job = await read_job(db, job_id, lock=True)
            if job.state is not JobState.PAUSED:
                raise FailedPrecondition(f"{job.name} is {job.state}; only a paused job can be resumed")
            job = await move(db, job, JobState.QUEUED, now=self._clock(), reason="resumed on request")
            afresh = {"failed_attempts": 0, "ready_time": None, "unavailable_since": None, "disk_full_since": None}
            await db.execute(jobs.update().where(jobs.c.id == job_id).values(**afresh))
            job = await read_job(db, job_id)
        self.notifier.notify(QUEUED, job.name)
        return job

    async def _request(self, job_id: str, *, running: JobState, idle: JobState, verb: str) -> Job:
        async with self._database.write() as db:
            job = await read_job(db, job_id, lock=True)
            target = running if job.state.leased else idle
            if job.state is target:
                return job
            if target not in MOVES[job.state]:
                raise FailedPrecondition(f"{job.name} is {job.state}; it is too late to {verb} it")
            job = await move(db, job, target, now=self._clock(), reason=f"{verb} requested")
        self.notifier.notify(job.name, requests_of(job_id))
        if job.state is JobState.CANCELLED:
            self.notifier.notify(IDLE_CANCELLED)
        return job


async def _made_by(db: Transaction, request_id: str, request: Mapping[str, Any] | None) -> Job | None:
    if not request_id:
        return None
    row = (await db.execute(sa.select(jobs).where(jobs.c.request_id == request_id))).one_or_none()
    if row is None:
        return None
    made = to_job(row)
    if row.request is not None and request is not None:  # jobs of 0.1.0 did not keep their request
        for field in sorted({*row.request, *request}):
            before, now = row.request.get(field), request.get(field)
            if before != now:
                raise InvalidArgument(
                    f"request_id: {request_id!r} has created {made.name} with {field} {_told(before)}, not "
                    f"{_told(now)}; repeat the same request, or use a fresh id",
                    field="request_id",
                    reason="REQUEST_ID_REUSED",
                )
    return made


def _row(new: NewJob, job_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": job_id,
        "request_id": new.request_id or None,
        "request": dict(new.request) if new.request is not None else None,
        "base_model": new.base_model,
        "base_version": new.base.name,
        "base_digest": new.base.digest,
        "dataset_version": new.dataset.name,
        "dataset_digest": new.dataset.digest,
        "output_model": new.output_model,
        "recipe": new.recipe,
        "spec": new.spec.model_dump(mode="json"),
        "merge": new.merge,
        "promote": new.promote,
        "state": JobState.QUEUED,
        "create_time": now,
        "update_time": now,
    }


def _told(value: Any) -> str:
    return "unset" if value is None else repr(value)[:200]
