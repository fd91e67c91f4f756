"""What only SQLite does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from tuneloom_common.database import open_database
from tuneloom_common.errors import Unavailable

REGISTRY = "tuneloom_registry.migrations"


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_the_directory_of_a_new_file_is_made(tmp_path: Path) -> None:
    database = await open_database(url(tmp_path / "not/there/yet.db"), migrations=REGISTRY)
    await database.dispose()
    assert (tmp_path / "not/there/yet.db").exists()


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


async def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite\\+aiosqlite:///FILE"):
        await open_database("sqlite+aiosqlite://", migrations=REGISTRY)


async def test_a_file_that_cannot_be_opened_is_away(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(Unavailable, match=r"cannot open the database .*x\.db: unable to open") as caught:
        await open_database(url(tmp_path / "x.db"), migrations=REGISTRY)
    assert caught.value.reason == "DATABASE_AWAY"
