"""What several transactions share: rows as values, moves between states, events in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Transaction, utc
from tuneloom_common.errors import FailedPrecondition, NotFound
from tuneloom_common.queue import LeaseLost
from tuneloom_trainer.jobs import MOVES, Artifact, Checkpoint, Job, JobState, StateChanged
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.tables import job_events, jobs
from tuneloom_trainer.training_events import EventBody, Progress, cut

MAX_REASON_CHARS = 63
"""Workers elsewhere may be anybody's; what the column does not hold would keep their job from ever ending."""
MAX_ERROR_BYTES = 8 << 10
"""A page of a thousand failed jobs fits into one message."""
QUEUED = "trainingJobs"
"""What the notifier tells runners under when there may be work; changes of one job are told under its name."""

IDLE_CANCELLED = f"{QUEUED}/cancelled"
"""What the notifier tells runners under when a job was cancelled that none of them holds."""


def requests_of(job_id: str) -> str:
    """What the notifier tells the runner of a job under when a client asks it to stop."""
    return f"{QUEUED}/{job_id}/requests"


async def read_job(db: Transaction, job_id: str, *, lock: bool = False) -> Job:
    """`lock` holds off other writers to the end of the transaction, where beginning one does not (PostgreSQL)."""
    query = sa.select(jobs).where(jobs.c.id == job_id)
    row = (await db.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound(f"trainingJobs/{job_id} does not exist; 'tuneloom jobs list' shows the jobs there are")
    return to_job(row)


async def move(
    db: Transaction, job: Job, state: JobState, *, now: datetime, reason: str = "", error_reason: str = ""
) -> Job:
    """The only writer of `state`: checks the table of moves and compares-and-sets. `reason` of a failure is its
    error."""
    if state not in MOVES[job.state]:
        raise FailedPrecondition(f"{job.name} cannot go from {job.state} to {state}")
    reason = cut(reason, max_bytes=MAX_ERROR_BYTES)
    values: dict[str, Any] = {"state": state, "update_time": now}
    if state is JobState.FAILED:
        values.update(error=reason, error_reason=error_reason[:MAX_REASON_CHARS])
    if state.final:
        values["end_time"] = now
    moved = jobs.update().where(jobs.c.id == job.id, jobs.c.state == job.state).values(**values)
    if (await db.execute(moved)).rowcount == 0:
        raise LeaseLost
    await append(db, job.id, [StateChanged(state=state, reason=reason)], now=now)
    return await read_job(db, job.id)


async def append(db: Transaction, job_id: str, events: Sequence[EventBody], *, now: datetime) -> None:
    """Adds events to a job's stream. The job's row is locked until the commit, so they become visible in order."""
    if not events:
        return
    one = jobs.update().where(jobs.c.id == job_id)
    await db.execute(one.values(event_sequence=jobs.c.event_sequence + len(events)))
    last = await db.scalar(sa.select(jobs.c.event_sequence).where(jobs.c.id == job_id))
    await db.execute(
        job_events.insert(),
        [
            {
                "job_id": job_id,
                "sequence": sequence,
                "kind": body.kind,
                "body": body.model_dump(mode="json"),
                "create_time": now,
            }
            for sequence, body in enumerate(events, start=last - len(events) + 1)
        ],
    )


def to_job(row: Any) -> Job:
    return Job(
        id=row.id,
        base_model=row.base_model,
        base=Artifact(row.base_version, row.base_digest),
        dataset=Artifact(row.dataset_version, row.dataset_digest),
        output_model=row.output_model,
        recipe=row.recipe,
        spec=TrainingSpec.stored(row.spec),
        merge=row.merge,
        promote=row.promote,
        state=JobState(row.state),
        error=cut(row.error or "", max_bytes=MAX_ERROR_BYTES),
        error_reason=row.error_reason,
        progress=Progress.stored(row.progress) if row.progress else None,
        result_version=row.result_version,
        merged_version=row.merged_version,
        lease_epoch=row.lease_epoch,
        failed_attempts=row.failed_attempts,
        worker_sequence=row.worker_sequence,
        create_time=utc(row.create_time),
        update_time=utc(row.update_time),
        end_time=utc(row.end_time) if row.end_time else None,
    )


def to_checkpoint(row: Any) -> Checkpoint:
    return Checkpoint(
        job_id=row.job_id,
        step=row.step,
        version=row.version,
        loss=row.loss,
        create_time=utc(row.create_time),
        lease_epoch=row.lease_epoch,
        last=row.last,
    )
