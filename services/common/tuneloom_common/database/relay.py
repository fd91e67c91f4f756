"""Tells the processes on one PostgreSQL database of each other's commits, by LISTEN and NOTIFY.

A word is sent after its commit, by a connection of its own: notifications within the transactions would make all of
them commit one after the other. A word that is lost is no harm, for watchers poll.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection, sql

from tuneloom_common.notifier import Notifier
from tuneloom_common.patience import error_line

FIRST_PAUSE_SECONDS = 0.2
LAST_PAUSE_SECONDS = 5.0
SEND = "SELECT pg_notify(%s, word) FROM unnest(%s::text[]) AS word"
log = structlog.get_logger()


class Relay:
    """Carries a notifier's keys over a channel."""

    def __init__(self, notifier: Notifier, *, connect: Mapping[str, Any], channel: str) -> None:
        self._notifier = notifier
        self._connect = connect
        self._channel = channel
        self._me = secrets.token_hex(4)
        self._waiting: set[str] = set()
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, over every loss of a connection."""
        with self._notifier.carried(self._take):
            async with asyncio.TaskGroup() as both:
                both.create_task(self._connected(self._listen))
                both.create_task(self._connected(self._send))

    def _take(self, key: str) -> None:
        self._waiting.add(key)
        self._some.set()

    async def _connected(self, work: Callable[[AsyncConnection[Any]], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with await AsyncConnection.connect(**self._connect, autocommit=True) as connection:
                    pause = FIRST_PAUSE_SECONDS
                    await work(connection)
            except (psycopg.Error, OSError) as error:
                log.warning(f"other processes are heard by polling only, connecting again: {error_line(error)}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._notifier.wake_all()  # for what was said while nobody listened
        async for heard in connection.notifies():
            sender, _, key = heard.payload.partition(" ")
            if sender != self._me:
                self._notifier.wake(key)

    async def _send(self, connection: AsyncConnection[Any]) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            keys, self._waiting = self._waiting, set()
            try:
                await connection.execute(SEND, (self._channel, [f"{self._me} {key}" for key in keys]))
            except psycopg.Error:
                self._waiting |= keys
                self._some.set()
                raise
