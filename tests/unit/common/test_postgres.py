"""What only a server does: it is restarted, cuts connections, is not there yet; and its password is a secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import sqlalchemy as sa
import structlog

from tests.databases.cluster import Cluster
from tuneloom_common.database import Database, open_database
from tuneloom_common.errors import InvalidArgument, Unavailable
from tuneloom_registry.tables import fences

REGISTRY = "tuneloom_registry.migrations"
COUNT = sa.text("SELECT count(*) FROM fences")
INSERT = sa.text("INSERT INTO fences VALUES ('a', 1)")


@pytest.fixture
def name(postgres: Cluster) -> Iterator[str]:
    name = postgres.new_database()
    yield name
    postgres.drop(name)


@pytest.fixture
async def database(postgres: Cluster, name: str) -> AsyncIterator[Database]:
    database = await open_database(postgres.url(name), migrations=REGISTRY)
    yield database
    await database.dispose()


async def test_a_connection_that_is_cut_costs_its_own_transaction_only(
    postgres: Cluster, name: str, database: Database
) -> None:
    async def insert_and_lose_the_connection() -> None:
        async with database.write() as db:
            await db.execute(INSERT)
            postgres.cut(name)
            await db.execute(COUNT)

    with pytest.raises(Unavailable, match="does not answer; try again") as caught:
        await insert_and_lose_the_connection()
    assert caught.value.reason == "DATABASE_AWAY"
    async with database.read() as db:
        assert await db.scalar(COUNT) == 0


async def test_a_cut_before_the_commit_is_told(postgres: Cluster, name: str, database: Database) -> None:
    async def insert_and_lose_the_connection() -> None:
        async with database.write() as db:
            await db.execute(INSERT)
            postgres.cut(name)

    with pytest.raises(Unavailable):
        await insert_and_lose_the_connection()


async def test_connections_that_died_between_two_calls_are_noticed_by_none(
    postgres: Cluster, name: str, database: Database
) -> None:
    for disturb in (lambda: postgres.cut(name), postgres.restart):
        disturb()
        async with database.read() as db:
            assert await db.scalar(COUNT) == 0


async def test_a_server_that_is_down_is_unavailable_until_it_is_back(postgres: Cluster, database: Database) -> None:
    async def count() -> object:
        async with database.read() as db:
            return await db.scalar(COUNT)

    postgres.stop()
    try:
        with pytest.raises(Unavailable) as caught:
            await count()
    finally:
        postgres.start()
    assert caught.value.reason == "DATABASE_AWAY"
    assert await count() == 0


async def test_a_service_that_starts_first_waits_for_its_server(postgres: Cluster, name: str) -> None:
    postgres.stop()
    try:
        opening = asyncio.create_task(open_database(postgres.url(name), migrations=REGISTRY))
        await asyncio.sleep(0.3)
        assert not opening.done()
    finally:
        postgres.start()
    await (await opening).dispose()


async def test_no_password_is_told(postgres: Cluster) -> None:
    url = f"postgresql://tuneloom:s3cret@127.0.0.1:{postgres.port}/not-there"
    with structlog.testing.capture_logs() as logged, pytest.raises(Unavailable, match="not-there") as caught:
        await open_database(url, migrations=REGISTRY, patience_seconds=0)
    assert "tuneloom:***@127.0.0.1" in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r} {logged}"
    assert 'database "not-there" does not exist' in str(logged)


async def test_registry_and_trainer_may_share_a_database(postgres: Cluster, name: str, database: Database) -> None:
    trainer = await open_database(postgres.url(name), migrations="tuneloom_trainer.migrations")
    async with trainer.read() as db:
        assert await db.scalar(sa.text("SELECT count(*) FROM jobs")) == 0
        assert await db.scalar(COUNT) == 0
    await trainer.dispose()


async def test_sessions_have_bounds_and_utc(database: Database) -> None:
    async with database.write() as db:
        shown = [
            await db.scalar(sa.text(f"SHOW {setting}"))
            for setting in (
                "TimeZone",
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "transaction_isolation",
            )
        ]
    assert shown == ["UTC", "10s", "30s", "10s", "read committed"]


async def test_a_reader_sees_one_snapshot(database: Database) -> None:
    async with database.read() as reading:
        assert await reading.scalar(COUNT) == 0
        async with database.write() as writing:
            await writing.execute(INSERT)
        assert await reading.scalar(COUNT) == 0


async def test_what_no_column_holds_is_its_callers_fault(database: Database) -> None:
    async def insert(scope: str, epoch: int) -> None:
        async with database.write() as db:
            await db.execute(fences.insert().values(scope=scope, epoch=epoch))

    for scope, epoch in (("x" * 200, 1), ("a\0b", 1), ("a", 1 << 40)):
        with pytest.raises(InvalidArgument, match="cannot be stored"):
            await insert(scope, epoch)
