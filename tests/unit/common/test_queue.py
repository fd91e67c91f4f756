from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.databases.cluster import Cluster
from tests.databases.kinds import Databases
from tuneloom_common.database import Database, open_database, utc
from tuneloom_common.queue import (
    LONGEST_FULL_PAUSE,
    SHORTEST_FULL_PAUSE,
    UNAVAILABLE_PATIENCE,
    UNAVAILABLE_PAUSE,
    Lease,
    LeasedQueue,
    LeaseLost,
    Retry,
    lease_columns,
    pause_after,
)

LEASE = timedelta(seconds=10)
ITEMS = sa.Table(
    "items",
    sa.MetaData(),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("state", sa.String),
    sa.Column("done", sa.Integer),
    *lease_columns(),
)


class World:
    """A queue of the states "waiting", "held" and "over" on a real database, and a clock that moves when told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.queue = LeasedQueue(
            ITEMS, waiting=["waiting"], held=["held"], lease=LEASE, max_attempts=3, clock=lambda: self.now
        )

    async def add(self, *ids: str) -> None:
        async with self.database.write() as db:
            for item in ids:
                await db.execute(ITEMS.insert().values(id=item, state="waiting", lease_epoch=0, failed_attempts=0))

    async def claim(self, *mine: str) -> Lease | None:
        async with self.database.write() as db:
            row = await self.queue.next(db, mine=mine, lock=True)
            return None if row is None else await self.queue.take(db, row, state="held")

    async def apply(self, statement: sa.Update) -> None:
        async with self.database.write() as db:
            await self.queue.require(db, statement)

    async def put_back(self, lease: Lease, why: Retry) -> bool:
        """False when the item has used up its tries."""
        async with self.database.write() as db:
            values = await self.queue.retry(db, lease, why)
            if values is not None:
                await self.queue.require(db, self.queue.held(lease).values(state="waiting", **values))
        return values is not None

    async def row(self, item: str) -> Any:
        async with self.database.read() as db:
            return (await db.execute(sa.select(ITEMS).where(ITEMS.c.id == item))).one()

    def advance(self, by: timedelta) -> None:
        self.now += by


@pytest.fixture
async def world(databases: Databases) -> AsyncIterator[World]:
    database = await open_database(databases.migrated("registry"), migrations="tuneloom_registry.migrations")
    async with database.write() as db:
        await db.run_sync(ITEMS.metadata.create_all)
    yield World(database)
    await database.dispose()


async def test_the_oldest_item_is_claimed_first_and_by_one(world: World) -> None:
    await world.add("a", "b")
    assert await world.claim() == Lease("a", 1)
    assert await world.claim() == Lease("b", 1)
    assert await world.claim() is None


async def test_an_item_whose_lease_ran_out_is_claimed_again_and_its_old_holder_writes_nothing(world: World) -> None:
    await world.add("a")
    first = await world.claim()
    assert first is not None
    world.advance(LEASE + timedelta(seconds=1))
    assert await world.claim() == Lease("a", 2)
    with pytest.raises(LeaseLost):
        await world.apply(world.queue.held(first).values(done=1))
    async with world.database.write() as db:
        with pytest.raises(LeaseLost):
            await world.queue.heartbeat(db, first)
    assert (await world.row("a")).done is None


async def test_a_heartbeat_keeps_the_lease(world: World) -> None:
    await world.add("a")
    lease = await world.claim()
    assert lease is not None
    for _ in range(5):
        world.advance(LEASE * 0.9)
        async with world.database.write() as db:
            await world.queue.heartbeat(db, lease, done=7)
    assert await world.claim() is None
    assert (await world.row("a")).done == 7


async def test_who_was_suspended_past_its_lease_keeps_its_own_work(world: World) -> None:
    await world.add("a")
    lease = await world.claim()
    assert lease is not None
    world.advance(10 * LEASE)
    assert await world.claim("a") is None
    async with world.database.write() as db:
        await world.queue.heartbeat(db, lease)


async def test_an_ended_item_takes_no_more_writes(world: World) -> None:
    await world.add("a")
    lease = await world.claim()
    assert lease is not None
    await world.apply(world.queue.held(lease).values(state="over"))
    with pytest.raises(LeaseLost):
        await world.apply(world.queue.held(lease).values(done=1))


async def test_lost_workers_use_up_the_tries(world: World) -> None:
    await world.add("a")
    for again in (True, True, False):
        world.advance(timedelta(minutes=5))
        lease = await world.claim()
        assert lease is not None
        assert await world.put_back(lease, Retry.LOST_WORKER) is again


async def test_progress_gives_the_tries_back(world: World) -> None:
    await world.add("a")
    for _ in range(10):
        world.advance(timedelta(minutes=5))
        lease = await world.claim()
        assert lease is not None
        await world.apply(world.queue.advanced(lease).values(done=1))
        assert await world.put_back(lease, Retry.LOST_WORKER)


async def test_a_stop_of_the_runner_costs_nothing(world: World) -> None:
    await world.add("a")
    for _ in range(10):
        lease = await world.claim()
        assert lease is not None
        assert await world.put_back(lease, Retry.STOPPED)


@pytest.mark.parametrize(
    ("why", "pause"), [(Retry.UNAVAILABLE, UNAVAILABLE_PAUSE), (Retry.DISK_FULL, SHORTEST_FULL_PAUSE)]
)
async def test_what_is_away_or_full_is_tried_again_for_a_day(world: World, why: Retry, pause: timedelta) -> None:
    await world.add("a")
    lease = await world.claim()
    assert lease is not None
    assert await world.put_back(lease, why)
    assert await world.claim() is None
    world.advance(pause)
    lease = await world.claim()
    assert lease is not None
    assert await world.put_back(lease, why)
    world.advance(UNAVAILABLE_PATIENCE)
    lease = await world.claim()
    assert lease is not None
    assert not await world.put_back(lease, why)


async def test_a_claim_between_looking_and_taking_is_noticed(world: World) -> None:
    await world.add("a")
    async with world.database.read() as db:
        row = await world.queue.next(db)
    assert await world.claim() == Lease("a", 1)
    async with world.database.write() as db:
        with pytest.raises(LeaseLost):
            await world.queue.take(db, row, state="held")


def test_pauses_grow_up_to_a_limit() -> None:
    assert [pause_after(n).total_seconds() for n in (1, 2, 3, 4, 20)] == [0, 1, 2, 4, 30]


async def test_only_progress_ends_the_wait_for_a_full_disk(world: World) -> None:
    """An attempt that starts well, with everything at hand but space, is no progress."""
    await world.add("a")
    pauses = []
    for _ in range(60):
        lease = await world.claim()
        assert lease is not None
        await world.apply(world.queue.held(lease).values(unavailable_since=None))
        if not await world.put_back(lease, Retry.DISK_FULL):
            break
        pauses.append(utc((await world.row("a")).ready_time) - world.now)
        world.advance(max(pauses[-1], timedelta(minutes=30)))
    assert (pauses[0], pauses[-1], len(pauses)) == (SHORTEST_FULL_PAUSE, LONGEST_FULL_PAUSE, 49)


async def test_progress_ends_the_wait_for_a_full_disk(world: World) -> None:
    await world.add("a")
    for _ in range(3):
        lease = await world.claim()
        assert lease is not None
        await world.apply(world.queue.advanced(lease))
        assert await world.put_back(lease, Retry.DISK_FULL)
        world.advance(UNAVAILABLE_PATIENCE)


async def test_leases_are_held_against_the_databases_clock(postgres: Cluster) -> None:
    """Its clock is an hour ahead of this machine's."""
    name = postgres.new_database()
    with postgres.admin(name) as admin:
        admin.execute("CREATE SCHEMA ahead")
        admin.execute(
            "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
            "AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$"
        )
        admin.execute(f"ALTER DATABASE {name} SET search_path = public, ahead, pg_catalog")
    database = await open_database(postgres.url(name), migrations="tuneloom_registry.migrations")
    async with database.write() as db:
        await db.run_sync(ITEMS.metadata.create_all)
    world = World(database)
    world.queue = LeasedQueue(ITEMS, waiting=["waiting"], held=["held"], lease=LEASE, max_attempts=3)
    await world.add("a")

    assert await world.claim() == Lease("a", 1)

    ahead = utc((await world.row("a")).lease_expire_time) - datetime.now(UTC)
    assert timedelta(minutes=59) < ahead <= timedelta(hours=1) + LEASE
    assert await world.claim() is None
    await database.dispose()
    postgres.drop(name)
