"""A queue of leased work in a table: who claims an item holds it until its lease runs out.

Jobs and builds are such items. Their tables bring the columns of `lease_columns()`; their states and moves are their
own. Every claim raises the item's epoch, and whatever is written for an item names the epoch it was claimed under:
after another claim it changes no row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Transaction, utc

FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=30)
UNAVAILABLE_PAUSE = timedelta(seconds=2)
SHORTEST_FULL_PAUSE = timedelta(seconds=10)
LONGEST_FULL_PAUSE = timedelta(minutes=10)
UNAVAILABLE_PATIENCE = timedelta(hours=24)


class LeaseLost(Exception):
    """Somebody else claimed the item, or it was ended; whatever was being done must be dropped."""


class Retry(StrEnum):
    """Why an attempt ended without an end. A failure of the item's own is none of these: it ends the item."""

    STOPPED = "stopped"
    """Its runner shuts down. Costs nothing."""
    UNAVAILABLE = "unavailable"
    """A part it needs does not answer: another try soon, up to UNAVAILABLE_PATIENCE."""
    DISK_FULL = "disk full"
    """An attempt may work for long before it finds no space: not quite as soon, and only progress ends the wait."""
    LOST_WORKER = "lost worker"
    """Its worker died. Counted: an item whose every try kills a worker without getting further ends."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for one item."""

    id: str
    epoch: int


def lease_columns() -> tuple[sa.Column[Any], ...]:
    """`failed_attempts` counts workers lost in a row without progress; before `ready_time` the item is not claimed."""
    return (
        sa.Column("lease_epoch", sa.Integer),
        sa.Column("lease_expire_time", sa.DateTime(timezone=True)),
        sa.Column("failed_attempts", sa.Integer),
        sa.Column("ready_time", sa.DateTime(timezone=True)),
        sa.Column("unavailable_since", sa.DateTime(timezone=True)),
        sa.Column("disk_full_since", sa.DateTime(timezone=True)),
    )


class LeasedQueue:
    """Items of `table`, which has the columns `sequence`, `id`, `state` and `lease_columns()`.

    `waiting` are the states to claim from, `held` those in which a runner works on the item. Time is the database's,
    unless a `clock` is given: a machine whose clock is ahead must not see the leases of others run out.
    """

    def __init__(
        self,
        table: sa.Table,
        *,
        waiting: Collection[str],
        held: Collection[str],
        lease: timedelta,
        max_attempts: int,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.table = table
        self._clock = clock
        self._waiting = [str(state) for state in waiting]
        self._held = [str(state) for state in held]
        self._lease = lease
        self._max_attempts = max_attempts

    async def next(self, db: Transaction, *, mine: Collection[str] = (), lock: bool = False) -> Any:
        """The row of the oldest item that is due: waiting, or held under a lease that ran out; None when none is.

        `mine` are the ids its caller holds: a process that was suspended past its leases keeps its own work.
        """
        columns, now = self.table.c, await self._now(db)
        ready = sa.or_(columns.ready_time.is_(None), columns.ready_time <= now)
        expired = columns.lease_expire_time < now
        # One query a state: each walks the index of such items up to the first that is due. The state is written out,
        # because a prepared statement with a parameter could be for any, and PostgreSQL would walk through all items.
        queries = [
            sa.select(self.table).where(columns.state == sa.literal(state, literal_execute=True), due)
            for states, due in ((self._waiting, ready), (self._held, expired))
            for state in states
        ]
        found = []
        for query in queries:
            one = query.where(columns.id.not_in(list(mine))).order_by(columns.sequence).limit(1)
            row = (await db.execute(one.with_for_update(skip_locked=True) if lock else one)).one_or_none()
            if row is not None:
                found.append(row)
        return min(found, key=lambda row: row.sequence, default=None)

    async def take(self, db: Transaction, row: Any, **values: Any) -> Lease:
        """Claims the row that `next` found in the same transaction; `values` are set along with it."""
        lease = Lease(row.id, row.lease_epoch + 1)
        claimed = self.table.update().where(self.table.c.id == row.id, self.table.c.lease_epoch == row.lease_epoch)
        expires = await self._now(db) + self._lease
        await self.require(
            db, claimed.values(lease_epoch=lease.epoch, lease_expire_time=expires, ready_time=None, **values)
        )
        return lease

    def held(self, lease: Lease) -> sa.Update:
        """An update that applies only under the newest claim, while the item is held."""
        columns = self.table.c
        return self.table.update().where(
            columns.id == lease.id, columns.lease_epoch == lease.epoch, columns.state.in_(self._held)
        )

    def advanced(self, lease: Lease) -> sa.Update:
        """As `held`, for a write that is progress: the budget of tries begins anew."""
        return self.held(lease).values(failed_attempts=0, unavailable_since=None, disk_full_since=None)

    async def require(self, db: Transaction, statement: sa.Update) -> None:
        """Runs an update; raises LeaseLost when it applied to nothing."""
        if (await db.execute(statement)).rowcount == 0:
            raise LeaseLost

    async def hold(self, db: Transaction, lease: Lease) -> None:
        """Keeps the lease to the end of the transaction, for what is written elsewhere; raises LeaseLost as `require`.
        The item's row, which may be wide, is not written again."""
        columns = self.table.c
        mine = (columns.id == lease.id, columns.lease_epoch == lease.epoch, columns.state.in_(self._held))
        if await db.scalar(sa.select(columns.id).where(*mine).with_for_update()) is None:
            raise LeaseLost

    async def heartbeat(self, db: Transaction, lease: Lease, **values: Any) -> None:
        """Extends the lease; raises LeaseLost after another claim or the item's end."""
        expires = await self._now(db) + self._lease
        await self.require(db, self.held(lease).values(lease_expire_time=expires, **values))

    async def retry(self, db: Transaction, lease: Lease, why: Retry) -> dict[str, Any] | None:
        """The columns to set when the item goes back to waiting, or None when it has used up its tries."""
        columns = self.table.c
        counted = (columns.failed_attempts, columns.unavailable_since, columns.disk_full_since)
        query = sa.select(*counted).where(columns.id == lease.id)
        row = (await db.execute(query)).one()
        now = await self._now(db)
        if why is Retry.STOPPED:
            return {"ready_time": None}
        if why is Retry.UNAVAILABLE:
            since = utc(row.unavailable_since or now)
            return _unless_too_long(now - since, ready_time=now + UNAVAILABLE_PAUSE, unavailable_since=since)
        if why is Retry.DISK_FULL:
            since = utc(row.disk_full_since or now)
            pause = min(LONGEST_FULL_PAUSE, max(SHORTEST_FULL_PAUSE, (now - since) / 10))
            return _unless_too_long(now - since, ready_time=now + pause, disk_full_since=since)
        failed = row.failed_attempts + 1
        if failed >= self._max_attempts:
            return None
        return {"ready_time": now + pause_after(failed), "failed_attempts": failed}

    async def _now(self, db: Transaction) -> datetime:
        return self._clock() if self._clock else await db.now()


def _unless_too_long(waited: timedelta, **values: Any) -> dict[str, Any] | None:
    return values if waited <= UNAVAILABLE_PATIENCE else None


def pause_after(failed_attempts: int) -> timedelta:
    """None after the first lost worker, which may have been an accident; then longer and longer."""
    if failed_attempts <= 1:
        return timedelta()
    return min(LONGEST_PAUSE, FIRST_PAUSE * int(2 ** (failed_attempts - 2)))
