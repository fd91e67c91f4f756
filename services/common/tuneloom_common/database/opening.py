"""Opens a database by its URL and brings its schema up to date."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging

import alembic.command
import alembic.config
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tuneloom_common.database.failures import BUSY
from tuneloom_common.database.limits import DEFAULTS, Limits
from tuneloom_common.database.sqlite import sqlite_database
from tuneloom_common.database.transactions import Database
from tuneloom_common.errors import Unavailable
from tuneloom_common.patience import error_line

OPEN_TRIES = 50
OPEN_PAUSE_SECONDS = 0.2


async def open_database(url: str, *, migrations: str, limits: Limits = DEFAULTS) -> Database:
    """Connects and upgrades the schema.

    `migrations` is the package that holds the Alembic scripts, for example "tuneloom_trainer.migrations".
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        database = await sqlite_database(parsed, limits)
    else:
        engine = create_async_engine(url)
        database = Database(engine, engine.execution_options(postgresql_readonly=True))
    try:
        await _migrate(database, migrations)
    except Unavailable as error:
        await database.dispose()
        shown, cause = parsed.render_as_string(hide_password=True), error.__cause__ or error
        raise Unavailable(f"cannot open the database {shown}: {error_line(cause)}", reason=error.reason) from error
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
        except Unavailable as error:
            if patience == 1 or error.reason != BUSY.reason:
                raise
        await asyncio.sleep(OPEN_PAUSE_SECONDS)


def _upgrade(connection: Connection, migrations: str) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(importlib.resources.files(migrations)).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
