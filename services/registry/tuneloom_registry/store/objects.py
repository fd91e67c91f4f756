"""Which object store the registered versions are in."""

from __future__ import annotations

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction
from tuneloom_registry.tables import object_store, versions

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
            if (known := await _identity(db)) is not None:
                return known
            await db.execute(object_store.insert().values(id=ONLY, identity=store_id))
            return store_id

    async def names_objects(self) -> bool:
        async with self._database.read() as db:
            return await db.scalar(sa.select(versions.c.number).limit(1)) is not None


async def _identity(db: Transaction) -> str | None:
    found: str | None = await db.scalar(sa.select(object_store.c.identity).where(object_store.c.id == ONLY))
    return found
