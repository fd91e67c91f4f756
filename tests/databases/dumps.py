"""What an earlier release wrote, as it would be in PostgreSQL: its first schema, and every row of an SQLite dump."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import sqlalchemy as sa

from tuneloom_common.database.opening import alembic_config


def restore(dump: Path, url: str, service: str) -> None:
    """Fills an empty PostgreSQL database from a dump of an SQLite one."""
    with closing(sqlite3.connect(":memory:")) as source:
        source.executescript(dump.read_text("utf-8"))
        ((revision,),) = source.execute("SELECT version_num FROM alembic_version")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            alembic.command.upgrade(alembic_config(connection, f"tuneloom_{service}.migrations"), revision)
            schema = sa.MetaData()
            schema.reflect(connection)
            for table in schema.sorted_tables:
                if not table.name.endswith("_schema"):
                    _copy(source, connection, table)
        engine.dispose()


def _copy(source: sqlite3.Connection, target: sa.Connection, table: sa.Table) -> None:
    rows = source.execute(f'SELECT {", ".join(table.columns.keys())} FROM "{table.name}"').fetchall()
    if rows:
        values = [
            {column.name: _value(column, value) for column, value in zip(table.columns, row, strict=True)}
            for row in rows
        ]
        target.execute(table.insert(), values)
    if "sequence" in table.columns and len(table.primary_key) == 1:
        identity = sa.func.pg_get_serial_sequence(table.name, "sequence")
        target.execute(sa.select(sa.func.setval(identity, sa.func.max(table.c.sequence))).select_from(table))


def _value(column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        return None
    match column.type:
        case sa.DateTime():
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        case sa.JSON():
            return json.loads(value)
        case sa.Boolean():
            return bool(value)
    return value
