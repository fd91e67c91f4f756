from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.databases.kinds import Databases
from tuneloom_common.database import Database, Limits, open_database
from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_registry.tables import fences

REGISTRY = "tuneloom_registry.migrations"


async def tables(engine: Database) -> set[str]:
    async with engine.read() as db:
        return set(await db.run_sync(lambda connection: sa.inspect(connection).get_table_names()))


@pytest.mark.parametrize(("service", "table"), [("registry", "versions"), ("trainer", "jobs")])
async def test_migrations_run_from_nothing_and_again(databases: Databases, service: str, table: str) -> None:
    url = databases.empty()
    first = await open_database(url, migrations=f"tuneloom_{service}.migrations")
    made = await tables(first)
    assert table in made
    async with first.write() as db:
        await db.execute(sa.text("CREATE TABLE kept (x int)"))
    await first.dispose()
    again = await open_database(url, migrations=f"tuneloom_{service}.migrations")
    assert await tables(again) == made | {"kept"}
    await again.dispose()


async def test_two_services_may_start_at_once(databases: Databases) -> None:
    url = databases.empty()
    engines = await asyncio.gather(*(open_database(url, migrations=REGISTRY) for _ in range(3)))
    seen = [await tables(engine) for engine in engines]
    assert seen[0] == seen[1] == seen[2]
    for engine in engines:
        await engine.dispose()


async def test_the_tables_match_what_the_migrations_leave(databases: Databases) -> None:
    from tuneloom_registry.tables import metadata

    engine = await open_database(databases.migrated("registry"), migrations=REGISTRY)
    async with engine.write() as db:
        for name, table in metadata.tables.items():
            columns = await db.run_sync(lambda connection, name=name: sa.inspect(connection).get_columns(name))
            assert {column["name"] for column in columns} == set(table.columns.keys()), name
    await engine.dispose()


async def test_a_failed_transaction_changes_nothing(databases: Databases) -> None:
    engine = await open_database(databases.migrated("registry"), migrations=REGISTRY)

    async def insert_and_fail() -> None:
        async with engine.write() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('a', 1)"))
            raise KeyError

    with pytest.raises(KeyError):
        await insert_and_fail()
    async with engine.write() as db:
        assert (await db.execute(sa.text("SELECT count(*) FROM fences"))).scalar_one() == 0
    await engine.dispose()


@pytest.fixture
def broken_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose second step fails, in a directory whose name has a percent sign."""
    package = tmp_path / "100%/broken_migrations"
    (package / "versions").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'])\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    step = "from alembic import op\nrevision = '{}'\ndown_revision = {}\ndef upgrade():\n    op.execute('{}')\n"
    (package / "versions/one.py").write_text(step.format("1", None, "CREATE TABLE first (x int)"))
    (package / "versions/two.py").write_text(step.format("2", "'1'", "CREATE NONSENSE"))
    monkeypatch.syspath_prepend(str(package.parent))
    yield "broken_migrations"
    sys.modules.pop("broken_migrations", None)


async def test_a_failed_migration_leaves_the_database_as_it_was(databases: Databases, broken_migrations: str) -> None:
    url = databases.empty()
    with pytest.raises(sa.exc.DBAPIError, match="NONSENSE"):
        await open_database(url, migrations=broken_migrations)
    engine = await open_database(url, migrations=REGISTRY)
    assert "first" not in await tables(engine)
    await engine.dispose()


async def test_a_call_cancelled_twice_in_a_statement_leaves_neither_waiters_nor_locks(databases: Databases) -> None:
    """As at shutdown: first by the server, then by the end of the loop."""
    engine = await open_database(databases.migrated("registry"), migrations=REGISTRY)
    slow = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n"
    )

    async def read() -> None:
        async with engine.write() as db:
            await db.execute(slow)

    for attempt in range(3):
        others = asyncio.all_tasks()
        call = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        for _ in range(2):
            call.cancel()
            await asyncio.sleep(0)
        if left := asyncio.all_tasks() - others:
            _, waiting = await asyncio.wait(left, timeout=5)
            assert not waiting
        async with asyncio.timeout(5), engine.write() as db:  # less than the busy timeout
            await db.execute(sa.text("INSERT INTO fences VALUES (:scope, 1)"), {"scope": str(attempt)})
    await engine.dispose()


async def test_a_reader_waits_for_no_writer_and_sees_the_last_commit(databases: Databases) -> None:
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY)
    count = sa.text("SELECT count(*) FROM fences")
    async with asyncio.timeout(5), database.write() as writing:
        await writing.execute(sa.text("INSERT INTO fences VALUES ('a', 1)"))
        async with database.read() as reading:
            assert await reading.scalar(count) == 0
    async with database.read() as reading:
        assert await reading.scalar(count) == 1
    await database.dispose()


async def test_a_reader_cannot_write(databases: Databases) -> None:
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY)

    async def write_while_reading() -> None:
        async with database.read() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('a', 1)"))

    with pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
        await write_while_reading()
    await database.dispose()


async def test_a_cancelled_write_changes_nothing(databases: Databases) -> None:
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY)
    inserted = asyncio.Event()

    async def insert() -> None:
        async with database.write() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('b', 1)"))
            inserted.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(insert())
    await inserted.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    async with database.read() as db:
        assert await db.scalar(sa.text("SELECT count(*) FROM fences")) == 0
    await database.dispose()


async def test_a_mistake_of_ours_stays_one(databases: Databases) -> None:
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY)

    async def write(statement: str) -> None:
        async with database.write() as db:
            await db.execute(sa.text(statement))

    for statement in ("SELECT nonsense", "INSERT INTO fences VALUES ('b', NULL)"):
        with pytest.raises(sa.exc.DBAPIError):
            await write(statement)
    await database.dispose()


async def test_a_lock_that_is_held_for_too_long_is_no_failure_of_ours(databases: Databases) -> None:
    url = databases.migrated("registry")
    holder = await open_database(url, migrations=REGISTRY)
    waiter = await open_database(url, migrations=REGISTRY, limits=Limits(lock_seconds=0.05))

    async def insert(database: Database) -> None:
        async with database.write() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('b', 1)"))

    async with holder.write() as held:
        await held.execute(sa.text("INSERT INTO fences VALUES ('b', 2)"))
        with pytest.raises(Unavailable, match="stays locked; try again") as caught:
            await insert(waiter)
        assert caught.value.reason == "DATABASE_BUSY"
        await held.execute(sa.text("DELETE FROM fences"))
    await insert(waiter)
    for database in (holder, waiter):
        await database.dispose()


async def test_connections_that_are_all_in_use_are_waited_for_within_bounds(databases: Databases) -> None:
    limits = Limits(lock_seconds=0.05, connections=2)
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY, limits=limits)

    async def read_without_end(held: AsyncExitStack) -> None:
        while True:
            await held.enter_async_context(database.read())

    async with AsyncExitStack() as held:
        with pytest.raises(Unavailable, match="connection to the service's database is in use"):
            await read_without_end(held)
    await database.dispose()


async def test_a_schema_of_a_newer_release_is_left_alone(databases: Databases) -> None:
    url = databases.migrated("registry")
    database = await open_database(url, migrations=REGISTRY)
    table = "alembic_version" if databases.name == "sqlite" else "tuneloom_registry_schema"
    async with database.write() as db:
        await db.execute(sa.text(f"UPDATE {table} SET version_num = '9999'"))
    await database.dispose()
    with pytest.raises(FailedPrecondition, match=r"written by a newer release .*9999"):
        await open_database(url, migrations=REGISTRY)


async def test_a_row_is_new_once_and_whoever_comes_second_reads_it(databases: Databases) -> None:
    database = await open_database(databases.migrated("registry"), migrations=REGISTRY)

    async def take(epoch: int) -> tuple[bool, int]:
        async with database.write() as db:
            new = await db.insert_new(fences, {"scope": "s", "epoch": epoch})
            await asyncio.sleep(0.01)
            return new, await db.scalar(sa.select(fences.c.epoch))

    taken = await asyncio.gather(*(take(epoch) for epoch in range(8)))
    assert sorted(new for new, _ in taken) == [False] * 7 + [True]
    assert len({epoch for _, epoch in taken}) == 1
    await database.dispose()


async def test_no_password_of_a_database_is_told() -> None:
    url = "postgresql://u:s3cret-1@127.0.0.1:9/db?password=s3cret-2&sslpassword=s3cret-3&sslmode=disable"
    with pytest.raises(Unavailable, match=r"cannot open the database postgresql://u:\*+@127\.0\.0\.1:9/db") as caught:
        await open_database(url, migrations="tuneloom_registry.migrations", patience_seconds=0)
    assert "sslmode=disable" in str(caught.value)
    assert "s3cret" not in str(caught.value)
