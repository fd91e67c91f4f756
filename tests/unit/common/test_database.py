from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tuneloom_common.database import Database, Limits, open_database
from tuneloom_common.errors import Unavailable

REGISTRY = "tuneloom_registry.migrations"


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def tables(engine: Database) -> set[str]:
    async with engine.read() as db:
        return set(await db.run_sync(lambda connection: sa.inspect(connection).get_table_names()))


@pytest.mark.parametrize("service", ["registry", "trainer"])
async def test_migrations_run_from_nothing_and_again(tmp_path: Path, service: str) -> None:
    path = tmp_path / "not/there/yet.db"
    first = await open_database(url(path), migrations=f"tuneloom_{service}.migrations")
    made = await tables(first)
    assert "alembic_version" in made
    async with first.write() as db:
        await db.execute(sa.text("CREATE TABLE kept (x)"))
    await first.dispose()
    again = await open_database(url(path), migrations=f"tuneloom_{service}.migrations")
    assert await tables(again) == made | {"kept"}
    await again.dispose()


async def test_two_services_may_start_at_once(tmp_path: Path) -> None:
    engines = await asyncio.gather(*(open_database(url(tmp_path / "x.db"), migrations=REGISTRY) for _ in range(3)))
    seen = [await tables(engine) for engine in engines]
    assert seen[0] == seen[1] == seen[2]
    for engine in engines:
        await engine.dispose()


async def test_the_tables_match_what_the_migrations_leave(tmp_path: Path) -> None:
    from tuneloom_registry.tables import metadata

    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    async with engine.write() as db:
        for name, table in metadata.tables.items():
            columns = await db.run_sync(lambda connection, name=name: sa.inspect(connection).get_columns(name))
            assert {column["name"] for column in columns} == set(table.columns.keys()), name
    await engine.dispose()


async def test_sqlite_is_durable_and_checks_keys(tmp_path: Path) -> None:
    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    async with engine.write() as db:
        answers = [
            (await db.execute(sa.text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert answers == ["wal", 2, 1, 10_000]
    await engine.dispose()


async def test_a_transaction_that_reads_first_never_loses_its_write(tmp_path: Path) -> None:
    """Read, yield, write: with deferred transactions all but one fail with "database is locked"."""
    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    async with engine.write() as db:
        await db.execute(sa.text("CREATE TABLE counter AS SELECT 0 AS n"))

    async def add() -> None:
        async with engine.write() as db:
            n = (await db.execute(sa.text("SELECT n FROM counter"))).scalar_one()
            await asyncio.sleep(0)
            await db.execute(sa.text("UPDATE counter SET n = :n"), {"n": n + 1})

    await asyncio.gather(*(add() for _ in range(10)))
    async with engine.write() as db:
        assert (await db.execute(sa.text("SELECT n FROM counter"))).scalar_one() == 10
    await engine.dispose()


async def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)

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
    (package / "versions/one.py").write_text(step.format("1", None, "CREATE TABLE first (x)"))
    (package / "versions/two.py").write_text(step.format("2", "'1'", "CREATE NONSENSE"))
    monkeypatch.syspath_prepend(str(package.parent))
    yield "broken_migrations"
    sys.modules.pop("broken_migrations", None)


async def test_a_failed_migration_leaves_the_database_as_it_was(tmp_path: Path, broken_migrations: str) -> None:
    with pytest.raises(sa.exc.OperationalError, match="NONSENSE"):
        await open_database(url(tmp_path / "x.db"), migrations=broken_migrations)
    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    assert "first" not in await tables(engine)
    await engine.dispose()


async def test_a_call_cancelled_twice_in_a_statement_leaves_neither_waiters_nor_locks(tmp_path: Path) -> None:
    """As at shutdown: first by the server, then by the end of the loop."""
    engine = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
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


async def test_a_reader_waits_for_no_writer_and_sees_the_last_commit(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    count = sa.text("SELECT count(*) FROM fences")
    async with asyncio.timeout(5), database.write() as writing:
        await writing.execute(sa.text("INSERT INTO fences VALUES ('a', 1)"))
        async with database.read() as reading:
            assert await reading.scalar(count) == 0
    async with database.read() as reading:
        assert await reading.scalar(count) == 1
    await database.dispose()


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)

    async def write_while_reading() -> None:
        async with database.read() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('a', 1)"))

    with pytest.raises(sa.exc.OperationalError, match="readonly"):
        await write_while_reading()
    await database.dispose()


async def test_who_gives_up_waiting_for_its_turn_holds_up_nobody(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)

    async def insert() -> None:
        async with database.write() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('b', 1)"))

    async with database.write():
        waiting = asyncio.create_task(insert())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(5):
        await insert()
    await database.dispose()


async def test_a_cancelled_write_changes_nothing(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
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


async def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite\\+aiosqlite:///FILE"):
        await open_database("sqlite+aiosqlite://", migrations=REGISTRY)


async def test_a_lock_that_is_held_for_too_long_is_no_failure_of_ours(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY, limits=Limits(lock_seconds=0.05))

    async def insert() -> None:
        async with database.write() as db:
            await db.execute(sa.text("INSERT INTO fences VALUES ('b', 1)"))

    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="stays locked; try again") as caught:
            await insert()
        assert caught.value.reason == "DATABASE_BUSY"
        other.execute("ROLLBACK")
    await insert()
    await database.dispose()


async def test_a_file_that_cannot_be_opened_is_away(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(Unavailable, match=r"cannot open the database .*x\.db: unable to open") as caught:
        await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    assert caught.value.reason == "DATABASE_AWAY"


async def test_connections_that_are_all_in_use_are_waited_for_within_bounds(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY, limits=Limits(lock_seconds=0.05))

    async def read_without_end(held: AsyncExitStack) -> None:
        while True:
            await held.enter_async_context(database.read())

    async with AsyncExitStack() as held:
        with pytest.raises(Unavailable, match="connection to the service's database is in use"):
            await read_without_end(held)
    await database.dispose()


async def test_a_mistake_of_ours_stays_one(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)

    async def write(statement: str) -> None:
        async with database.write() as db:
            await db.execute(sa.text(statement))

    for statement in ("SELECT nonsense", "INSERT INTO fences VALUES ('b', NULL)"):
        with pytest.raises(sa.exc.DBAPIError):
            await write(statement)
    await database.dispose()
