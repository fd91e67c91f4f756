"""Migrations keep every row of earlier releases, forth and back, on both kinds of database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import alembic.command
import pytest
import sqlalchemy as sa

from tests.contract.conftest import EACH_RELEASE
from tests.databases.kinds import Databases
from tuneloom_common.database import Database, open_database
from tuneloom_common.database.opening import alembic_config

pytestmark = EACH_RELEASE
Rows = dict[str, list[dict[str, Any]]]


async def rows(database: Database) -> Rows:
    """Every row of every table but the schema's own version."""

    def read(connection: sa.Connection) -> Rows:
        schema = sa.MetaData()
        schema.reflect(connection)
        return {
            table.name: [
                dict(row._mapping)
                for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns.values()))
            ]
            for table in schema.sorted_tables
            if table.name != "alembic_version" and not table.name.endswith("_schema")
        }

    async with database.read() as db:
        return await db.run_sync(read)


async def move(database: Database, migrations: str, revision: str) -> None:
    def run(connection: sa.Connection) -> None:
        config = alembic_config(connection, migrations)
        command = alembic.command.upgrade if revision == "head" else alembic.command.downgrade
        command(config, revision)

    async with database.write() as db:
        await db.run_sync(run)


def shared(rows: Rows, other: Rows) -> Rows:
    """Of the rows, the columns that the other has too."""
    return {
        table: [{name: value for name, value in row.items() if name in other[table][i]} for i, row in enumerate(kept)]
        for table, kept in rows.items()
        if other.get(table)
    }


@pytest.mark.parametrize("service", ["registry", "trainer"])
async def test_every_row_goes_back_and_forth(databases: Databases, release: Path, service: str) -> None:
    migrations = f"tuneloom_{service}.migrations"
    url = databases.restored(release / f"{service}.sql", service)
    database = await open_database(url, migrations=migrations)
    now = await rows(database)
    await move(database, migrations, "0001")
    then = await rows(database)
    assert sum(map(len, then.values())) > 20
    assert shared(now, then) == shared(then, now)
    await move(database, migrations, "head")
    assert await rows(database) == now
    await database.dispose()
