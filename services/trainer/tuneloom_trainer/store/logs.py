"""The end of a job's log, as far as its runner has shown it to the other trainers."""

from __future__ import annotations

import sqlalchemy as sa

from tuneloom_common.database import Transaction
from tuneloom_trainer.jobs import LogTail
from tuneloom_trainer.tables import job_logs


async def read_log(db: Transaction, job_id: str) -> LogTail | None:
    row = (await db.execute(sa.select(job_logs).where(job_logs.c.job_id == job_id))).one_or_none()
    return LogTail(row.text, row.truncated) if row else None


async def write_log(db: Transaction, job_id: str, tail: LogTail) -> None:
    """In place of what was there. The caller holds the job's lease."""
    # PostgreSQL knows no NUL in a text.
    values = {"text": tail.text.replace("\0", "\N{REPLACEMENT CHARACTER}"), "truncated": tail.truncated}
    written = await db.execute(job_logs.update().where(job_logs.c.job_id == job_id).values(**values))
    if written.rowcount == 0:
        await db.execute(job_logs.insert().values(job_id=job_id, **values))
