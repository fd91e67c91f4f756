"""Opens a database by its URL and brings its schema up to date."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import time

import alembic.command
import alembic.config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url

from tuneloom_common.database.failures import AWAY, BUSY
from tuneloom_common.database.limits import DEFAULTS, Limits
from tuneloom_common.database.sqlite import sqlite_database
from tuneloom_common.database.transactions import Database
from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_common.patience import error_line

OPEN_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 2.0


async def open_database(
    url: str, *, migrations: str, limits: Limits = DEFAULTS, patience_seconds: float = OPEN_SECONDS
) -> Database:
    """Connects and upgrades the schema. A server that is not up yet is waited for.

    `migrations` is the package that holds the Alembic scripts, for example "tuneloom_trainer.migrations".
    """
    parsed = make_url(url)
    database, passing = await _connected(parsed, limits, service=migrations.partition(".")[0])
    try:
        await _migrate(database, migrations, passing, patience_seconds)
    except (Unavailable, CommandError) as error:
        await database.dispose()
        shown = _shown(parsed)
        if isinstance(error, CommandError):
            raise FailedPrecondition(
                f"the database {shown} was written by a newer release ({error}); run that one, or restore a copy"
            ) from error
        cause = error_line(error.__cause__ or error)
        raise Unavailable(f"cannot open the database {shown}: {cause}", reason=error.reason) from error
    except BaseException:
        await database.dispose()
        raise
    return database


def _shown(url: URL) -> str:
    """Without its passwords: drivers take them from the query too."""
    secret = [name for name in url.query if "password" in name.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


async def _connected(url: URL, limits: Limits, *, service: str) -> tuple[Database, frozenset[str]]:
    """A database, and what is waited for while it is opened. SQLite turns some of those who open a new file at once
    away without waiting; a path that cannot be opened stays so."""
    if url.get_backend_name() == "sqlite":
        return await sqlite_database(url, limits), frozenset({BUSY.reason})
    from tuneloom_common.database.postgres import postgres_database  # the driver is loaded where it is needed

    return postgres_database(url, limits, service=service), frozenset({BUSY.reason, AWAY.reason})


async def _migrate(database: Database, migrations: str, passing: frozenset[str], patience_seconds: float) -> None:
    end, pause = time.monotonic() + patience_seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            async with database.write() as transaction:
                await transaction.run_sync(lambda connection: _upgrade(connection, migrations))
            return
        except Unavailable as error:
            if error.reason not in passing or time.monotonic() + pause > end:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)


def _upgrade(connection: Connection, migrations: str) -> None:
    """Several processes may start at once: the first one migrates, the others find it done."""
    if connection.dialect.name == "postgresql":
        from tuneloom_common.database.postgres import wait_for_turn

        wait_for_turn(connection, migrations)
    alembic.command.upgrade(alembic_config(connection, migrations), "head")


def alembic_config(connection: Connection, migrations: str) -> alembic.config.Config:
    """For Alembic's commands. In PostgreSQL several services may share a database, each with its own version."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(importlib.resources.files(migrations)).replace("%", "%%"))
    config.attributes["connection"] = connection
    shared = connection.dialect.name == "postgresql"
    config.attributes["version_table"] = f"{migrations.partition('.')[0]}_schema" if shared else "alembic_version"
    return config
