"""Opens a service's metadata database and brings its schema up to date. SQLite or PostgreSQL, by URL."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 10_000
P = ParamSpec("P")
T = TypeVar("T")


def whole(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Lets a transaction end before its caller's cancellation goes on. For every method that opens one.

    A cancelled SQLite transaction may keep its lock with a connection that nobody holds any more: then one client
    that hangs up in the wrong millisecond stops every writer.
    """

    @wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        transaction = asyncio.ensure_future(method(*args, **kwargs))
        try:
            return await asyncio.shield(transaction)
        except asyncio.CancelledError:
            while not transaction.done():
                with suppress(asyncio.CancelledError):  # asked twice
                    await asyncio.wait({transaction})
            transaction.exception()
            raise

    return run


def utc(value: datetime) -> datetime:
    """A stored time with its zone, which SQLite does not keep."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)


async def open_database(url: str, *, migrations: str) -> AsyncEngine:
    """Creates the engine and upgrades the schema.

    `migrations` is the package that holds the Alembic scripts, for example "tuneloom_trainer.migrations".
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        await asyncio.to_thread(Path(parsed.database).parent.mkdir, parents=True, exist_ok=True)
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, migrations)
    except BaseException:
        await engine.dispose()
        raise
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that reads and then writes can fail at the write; taking the lock first cannot.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(connection: Connection, migrations: str) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(importlib.resources.files(migrations)).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
