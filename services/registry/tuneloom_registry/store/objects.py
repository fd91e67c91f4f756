"""Which object store the registered versions are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction
from tuneloom_registry.tables import counters, object_store, versions

LOCK = "object_creations"
LOCK_SECONDS = 8
"""Less than a transaction in PostgreSQL may stand still. On SQLite nobody else writes meanwhile."""
ONLY = 1
"""A registry has one store, so the table has one row."""


class ObjectStoreRecord:
    """See `tuneloom_common.objects.identity`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store_id(self) -> str | None:
        async with self._database.read() as db:
            return await _identity(db)

    async def remember(self, store_id: str) -> str:
        async with self._database.write() as db:
            if await db.insert_new(object_store, {"id": ONLY, "identity": store_id}):
                return store_id
            return await _identity(db) or store_id

    @asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """Held by one process at a time; the same for every name, for what is written under it is small."""
        async with self._database.write() as db:
            await db.insert_new(counters, {"name": LOCK, "value": 0})
        async with self._database.write() as db, asyncio.timeout(LOCK_SECONDS):
            await db.execute(counters.update().where(counters.c.name == LOCK).values(value=counters.c.value + 1))
            yield

    async def names_objects(self) -> bool:
        async with self._database.read() as db:
            return await db.scalar(sa.select(versions.c.number).limit(1)) is not None


async def _identity(db: Transaction) -> str | None:
    found: str | None = await db.scalar(sa.select(object_store.c.identity).where(object_store.c.id == ONLY))
    return found
