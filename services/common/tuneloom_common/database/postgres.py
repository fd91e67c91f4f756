"""PostgreSQL: pooled connections with bounds of time, and what they are told at their start."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from tuneloom_common.database.limits import Limits
from tuneloom_common.database.relay import Relay
from tuneloom_common.database.transactions import Database
from tuneloom_common.notifier import Notifier

CONNECT_SECONDS = 5
RECYCLE_SECONDS = 1800
IDLE_IN_TRANSACTION_SECONDS = 10
"""Ours never wait for anything but the database: a process that stands still must not keep its locks."""


def postgres_database(url: URL, limits: Limits, *, service: str) -> Database:
    """Nothing is connected yet. A connection is tried before it is used, so a restarted server costs no call.

    Writers see what was committed before each statement and lock what they read to change it; readers see one
    snapshot.
    """
    arguments = _connect_arguments(url, limits, service)
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.lock_seconds,
        pool_pre_ping=True,
        pool_recycle=RECYCLE_SECONDS,
        connect_args=arguments,
    )
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    _, parameters = engine.dialect.create_connect_args(url)

    async def relay(notifier: Notifier) -> None:
        await Relay(notifier, connect={**parameters, **arguments}, channel=service).run()

    return Database(engine, reader, relay=relay)


def wait_for_turn(connection: Connection, name: str) -> None:
    """Only one process at a time goes on in its transaction, however long another's takes."""
    for setting in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(sa.text(f"SET LOCAL {setting} = 0"))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(name))))


def _connect_arguments(url: URL, limits: Limits, service: str) -> dict[str, Any]:
    """What the URL does not say: a peer that is gone without a word is noticed within about 10 seconds."""
    session = {
        "TimeZone": "UTC",
        "statement_timeout": round(1000 * limits.statement_seconds),
        "lock_timeout": round(1000 * limits.lock_seconds),
        "idle_in_transaction_session_timeout": 1000 * IDLE_IN_TRANSACTION_SECONDS,
    }
    given = url.query.get("options", "")
    options = [f"-c {name}={value}" for name, value in session.items()]
    defaults = {
        "application_name": service,
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    ours = {name: value for name, value in defaults.items() if name not in url.query}
    return {**ours, "options": " ".join([*options, *((given,) if isinstance(given, str) else given)])}
