"""What workers elsewhere tell a trainer that does not run their attempt, on its way to the one that does.

A worker is given the address of the trainers, not of one of them. Its token's hash and what it tells wait in the
database, so that any of them can answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction
from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_common.notifier import Changes, Notifier
from tuneloom_common.queue import Lease
from tuneloom_trainer.jobs import LEASED
from tuneloom_trainer.tables import attempt_workers, jobs, worker_reports

HEARD_SECONDS = 15.0
POLL_SECONDS = 0.5
MAX_WAITING_LINES = 1000
MAX_WAITING_BYTES = 16 << 20
"""Of one attempt; a report is taken whole where nothing waits."""
Line = tuple[int, str]
"""A sequence and the event as its line of the log."""


class Reports:
    """`heard_seconds` bounds how long a report waits for the trainer that runs the attempt."""

    def __init__(self, database: Database, *, notifier: Notifier, heard_seconds: float = HEARD_SECONDS) -> None:
        self._database = database
        self._notifier = notifier
        self._heard_seconds = heard_seconds

    async def admit(self, lease: Lease, token: str, *, goes_on_from: Collection[str] = ()) -> None:
        """The attempt's worker shows this token, from now on and until `withdraw`; see Inbox for the other one."""
        async with self._database.write() as db:
            await self._forget(db, lease.id)
            hashed = hashlib.sha256(token.encode()).hexdigest()
            values = {"token_sha256": hashed, "goes_on_from": sorted(goes_on_from)}
            await db.execute(attempt_workers.insert().values(**_key(lease), **values))

    async def withdraw(self, lease: Lease) -> None:
        """Nobody listens to the attempt's worker any more."""
        async with self._database.write() as db:
            current = sa.select(attempt_workers.c.lease_epoch).where(attempt_workers.c.job_id == lease.id)
            if (await db.execute(current)).scalar_one_or_none() == lease.epoch:
                await self._forget(db, lease.id)

    async def lease_of(self, hashed: bytes) -> Lease | None:
        """Whose worker shows the token with this hash."""
        query = sa.select(attempt_workers).where(attempt_workers.c.token_sha256 == hashed.hex())
        async with self._database.read() as db:
            row = (await db.execute(query)).one_or_none()
        return Lease(row.job_id, row.lease_epoch) if row else None

    async def goes_on_from(self, lease: Lease) -> frozenset[str]:
        """As `admit` was told. Raises when the attempt is not the newest, or has no worker elsewhere."""
        async with self._database.read() as db:
            await self._held(db, lease)
            query = sa.select(attempt_workers.c.goes_on_from).where(attempt_workers.c.job_id == lease.id)
            return frozenset((await db.execute(query)).scalar_one())

    async def tell(self, lease: Lease, lines: Sequence[Line]) -> int:
        """Returns the last sequence once the trainer that runs the attempt has stored it; raises Unavailable when it
        does not in time: what was told waits for it, telling it again does no harm."""
        async with self._database.write() as db:
            known = await self._held(db, lease, lock=True)
            last = max(known, await self._newest(db, lease))
            news = [line for line in lines if line[0] > last]
            if news and news[0][0] != last + 1:
                raise FailedPrecondition(
                    f"{lease.id}: event {last + 1} is missing before event {news[0][0]}; report from there",
                    reason="EVENTS_MISSING",
                    metadata={"next_sequence": str(last + 1)},
                )
            if news:
                await self._require_room(db, lease, after=known, news=news)
            for sequence, line in news:
                await db.execute(worker_reports.insert().values(**_key(lease), sequence=sequence, line=line))
        self._notifier.notify(reports_of(lease))
        return await self._stored(lease, lines[-1][0] if lines else known)

    async def told(self, lease: Lease, *, after: int) -> list[Line]:
        """For who runs the attempt: what came in after a sequence, the first of it; what came before it is removed."""
        mine = _of(lease)
        async with self._database.read() as db:
            first = await db.scalar(sa.select(sa.func.min(worker_reports.c.sequence)).where(mine))
            query = sa.select(worker_reports).where(mine, worker_reports.c.sequence > after)
            rows = (await db.execute(query.order_by(worker_reports.c.sequence).limit(MAX_WAITING_LINES))).all()
        if first is not None and first <= after:
            async with self._database.write() as db:
                await db.execute(worker_reports.delete().where(mine, worker_reports.c.sequence <= after))
        return [(row.sequence, row.line) for row in rows]

    def heard(self, lease: Lease) -> AbstractContextManager[Changes]:
        """For who runs the attempt: wakes when something was told."""
        return self._notifier.subscribe(reports_of(lease))

    async def _stored(self, lease: Lease, sequence: int) -> int:
        with self._notifier.subscribe(f"trainingJobs/{lease.id}") as changes:
            end = asyncio.get_running_loop().time() + self._heard_seconds
            while True:
                async with self._database.read() as db:
                    if await self._held(db, lease) >= sequence:
                        return sequence
                if asyncio.get_running_loop().time() > end:
                    raise Unavailable(
                        f"trainingJobs/{lease.id}: the trainer that runs attempt {lease.epoch} does not take in what "
                        "its worker tells; tell it again"
                    )
                await changes.wait(POLL_SECONDS)

    async def _held(self, db: Transaction, lease: Lease, *, lock: bool = False) -> int:
        """How far the attempt's worker was heard. Raises when the lease is lost."""
        query = (
            sa.select(jobs.c.worker_sequence)
            .join(attempt_workers, attempt_workers.c.job_id == jobs.c.id)
            .where(
                jobs.c.id == lease.id,
                jobs.c.lease_epoch == lease.epoch,
                jobs.c.state.in_([str(state) for state in LEASED]),
                attempt_workers.c.lease_epoch == lease.epoch,
            )
        )
        row = (await db.execute(query.with_for_update(of=jobs) if lock else query)).one_or_none()
        if row is None:
            raise lease_lost(lease)
        return int(row.worker_sequence)

    async def _require_room(self, db: Transaction, lease: Lease, *, after: int, news: Sequence[Line]) -> None:
        size = sa.func.coalesce(sa.func.sum(sa.func.length(worker_reports.c.line)), 0)
        query = sa.select(sa.func.count().label("lines"), size.label("size")).where(
            _of(lease), worker_reports.c.sequence > after
        )
        row = (await db.execute(query)).one()
        lines, size_bytes = int(row.lines), int(row.size)
        told = sum(len(line) for _, line in news)  # lines are ASCII
        if lines and (lines + len(news) > MAX_WAITING_LINES or size_bytes + told > MAX_WAITING_BYTES):
            raise Unavailable(
                f"trainingJobs/{lease.id}: what {lines} events of attempt {lease.epoch} tell waits already for the "
                "trainer that runs it; tell it again"
            )

    async def _newest(self, db: Transaction, lease: Lease) -> int:
        newest = await db.execute(sa.select(sa.func.max(worker_reports.c.sequence)).where(_of(lease)))
        return int(newest.scalar_one_or_none() or 0)

    async def _forget(self, db: Transaction, job_id: str) -> None:
        for table in (attempt_workers, worker_reports):
            await db.execute(table.delete().where(table.c.job_id == job_id))


def reports_of(lease: Lease) -> str:
    """What the notifier tells the runner of an attempt under when its worker has told something elsewhere."""
    return f"trainingJobs/{lease.id}/reports"


def lease_lost(lease: Lease) -> FailedPrecondition:
    return FailedPrecondition(
        f"trainingJobs/{lease.id}: no attempt {lease.epoch} runs here; its lease is lost, end the worker",
        reason="LEASE_LOST",
    )


def _key(lease: Lease) -> dict[str, Any]:
    return {"job_id": lease.id, "lease_epoch": lease.epoch}


def _of(lease: Lease) -> sa.ColumnElement[bool]:
    return sa.and_(worker_reports.c.job_id == lease.id, worker_reports.c.lease_epoch == lease.epoch)
