"""SQLite: one file, one writer at a time, readers on the last commit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tuneloom_common.database.limits import Limits
from tuneloom_common.database.transactions import Database


async def sqlite_database(url: URL, limits: Limits) -> Database:
    """Writers take turns before they reach the driver; readers use connections of their own and wait for nobody."""
    if not url.database or url.database == ":memory:":
        raise ValueError("a database in memory cannot be shared by connections; use sqlite+aiosqlite:///FILE")
    await asyncio.to_thread(Path(url.database).parent.mkdir, parents=True, exist_ok=True)
    writer, reader = (_engine(url, limits, query_only=query_only) for query_only in (False, True))
    return Database(writer, reader, turn=asyncio.Lock())


def _engine(url: URL, limits: Limits, *, query_only: bool) -> AsyncEngine:
    engine = create_async_engine(url, pool_timeout=limits.lock_seconds)
    busy_timeout_ms = round(1000 * limits.lock_seconds)
    pragmas = ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={busy_timeout_ms}"]
    # A deferred transaction that reads and then writes can fail at the write; taking the lock first cannot.
    begin = "BEGIN" if query_only else "BEGIN IMMEDIATE"
    if query_only:
        pragmas.append("query_only=ON")

    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
