"""A service's metadata database: opened and migrated by URL, read and written in short transactions."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 10_000
OPEN_TRIES = 50
OPEN_PAUSE_SECONDS = 0.2
T = TypeVar("T")


class Transaction:
    """One open transaction. A cancellation never lands inside a statement: it waits for the statement's end.

    A cancelled SQLite statement may keep its lock with a connection that nobody holds any more: then one client
    that hangs up in the wrong millisecond would stop every writer.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def execute(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sa.CursorResult[Any]:
        running: Awaitable[sa.CursorResult[Any]] = self._connection.execute(statement, parameters)
        return await _uncut(running)

    async def scalar(self, statement: sa.Executable) -> Any:
        """The first column of the first row, or None."""
        return (await self.execute(statement)).scalar()

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """For code that knows only synchronous connections, such as migrations."""
        return await _uncut(self._connection.run_sync(work))


class Database:
    """`read` and `write` open one transaction each, which commits at the end of its block.

    On SQLite writers take turns before they reach the driver, and readers use connections of their own that see the
    last commit: they wait for nobody.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._turn: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if writer.dialect.name == "sqlite" else nullcontext()
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A snapshot; writing in it is an error."""
        async with _transaction(self._reader) as transaction:
            yield transaction

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """All of it or, when the block raises or is cancelled, nothing."""
        async with self._turn, _transaction(self._writer) as transaction:
            yield transaction

    async def dispose(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()


async def open_database(url: str, *, migrations: str) -> Database:
    """Connects and upgrades the schema.

    `migrations` is the package that holds the Alembic scripts, for example "tuneloom_trainer.migrations".
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("a database in memory cannot be shared by connections; use sqlite+aiosqlite:///FILE")
        await asyncio.to_thread(Path(parsed.database).parent.mkdir, parents=True, exist_ok=True)
        database = Database(_sqlite(url, query_only=False), _sqlite(url, query_only=True))
    else:
        engine = create_async_engine(url)
        database = Database(engine, engine.execution_options(postgresql_readonly=True))
    try:
        await _migrate(database, migrations)
    except BaseException:
        await database.dispose()
        raise
    return database


async def _migrate(database: Database, migrations: str) -> None:
    """Several processes may open a new file at once; SQLite turns some away without waiting."""
    for patience in range(OPEN_TRIES, 0, -1):
        try:
            async with database.write() as transaction:
                await transaction.run_sync(lambda connection: _upgrade(connection, migrations))
            return
        except OperationalError as error:
            if patience == 1 or "locked" not in str(error.orig):
                raise
        await asyncio.sleep(OPEN_PAUSE_SECONDS)


def utc(value: datetime) -> datetime:
    """A stored time with its zone, which SQLite does not keep."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[Transaction]:
    connection = engine.connect()
    try:
        await _uncut(connection.start())
        await _uncut(connection.begin())
        yield Transaction(connection)
        await _uncut(connection.commit())
    finally:
        if connection.sync_connection is not None:  # it was started
            await _uncut(connection.close())  # rolls back what was not committed


async def _uncut(work: Awaitable[T]) -> T:
    """Awaits work to its end even when cancelled meanwhile; the cancellation goes on after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # asked twice
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def _sqlite(url: str, *, query_only: bool) -> AsyncEngine:
    engine = create_async_engine(url)
    pragmas = ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"]
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


def _upgrade(connection: Connection, migrations: str) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(importlib.resources.files(migrations)).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
