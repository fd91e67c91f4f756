"""Short transactions: one block, all of it or nothing, whatever its caller does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tuneloom_common.database.failures import told_to_callers
from tuneloom_common.database.values import utc
from tuneloom_common.notifier import Notifier

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

    async def now(self) -> datetime:
        """The time as everyone who shares the database reads it: clocks of machines differ."""
        if self._connection.dialect.name == "sqlite":
            return datetime.now(UTC)
        return utc(await self.scalar(sa.select(sa.func.clock_timestamp())))

    async def insert_new(self, table: sa.Table, values: Mapping[str, Any], *, key: str | None = None) -> bool:
        """Inserts a row, or returns False where the key (None: any of its keys) is taken. Who is taking it is waited
        for, so what it committed can be read next."""
        insert = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        new = insert(table).values(**values).on_conflict_do_nothing(index_elements=[key] if key else None)
        return await self.scalar(new.returning(sa.literal(1))) is not None

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """For code that knows only synchronous connections, such as migrations."""
        return await _uncut(self._connection.run_sync(work))


class Database:
    """`read` and `write` open one transaction each, which commits at the end of its block.

    A database that is away, busy or full raises Unavailable, from whatever statement met it.
    `turn` is what writers of this process hold while they write, where the database knows only one writer; `relay`
    carries a notifier's words to other processes until it is cancelled, where there may be any.
    """

    def __init__(
        self,
        writer: AsyncEngine,
        reader: AsyncEngine,
        *,
        turn: AbstractAsyncContextManager[Any] | None = None,
        relay: Callable[[Notifier], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._turn: AbstractAsyncContextManager[Any] = turn or nullcontext()
        self._relay = relay

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

    @asynccontextmanager
    async def relayed(self, notifier: Notifier) -> AsyncIterator[None]:
        """Meanwhile other processes on this database are woken by what this one notifies, and the other way round."""
        if self._relay is None:
            yield
            return
        relaying = asyncio.create_task(self._relay(notifier))
        try:
            yield
        finally:
            relaying.cancel()
            await asyncio.wait({relaying})

    async def dispose(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[Transaction]:
    with told_to_callers():
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
