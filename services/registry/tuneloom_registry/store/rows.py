"""Reads that several transactions share: rows of the registry's tables as its vocabulary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Transaction, utc
from tuneloom_common.errors import NotFound
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import VersionName
from tuneloom_registry.tables import aliases, collections, versions
from tuneloom_registry.versions import Collection, Version


async def require_collection(db: Transaction, name: str, *, lock: bool = False) -> Any:
    """A collection's row. `lock` holds off other writers of the collection to the end of the transaction."""
    query = sa.select(collections).where(collections.c.name == name)
    row = (await db.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        kind = name.partition("/")[0]
        command = "tuneloom models list" if kind == "models" else "tuneloom data list"
        raise NotFound(f"{name} does not exist; '{command}' shows what does", metadata={"name": name})
    return row


async def read_collections(db: Transaction, rows: Sequence[Any]) -> list[Collection]:
    """Collections of these rows with their aliases, by one query for all of them."""
    query = sa.select(aliases).where(aliases.c.parent.in_([row.name for row in rows]))
    pointed: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for alias in (await db.execute(query)).all() if rows else ():
        pointed[alias.parent][alias.alias] = alias.version
    return [
        Collection(
            name=row.name,
            create_time=utc(row.create_time),
            training_job=row.training_job,
            latest_version=row.latest_version,
            aliases=pointed[row.name],
        )
        for row in rows
    ]


async def alias_row(db: Transaction, parent: str, alias: str, *, lock: bool = False) -> Any:
    query = sa.select(aliases).where(aliases.c.parent == parent, aliases.c.alias == alias)
    return (await db.execute(query.with_for_update() if lock else query)).one_or_none()


async def read_version(db: Transaction, parent: str, number: int) -> Version:
    query = sa.select(versions).where(versions.c.parent == parent, versions.c.number == number)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"{parent} has no version {number}; list its versions to see which exist")
    return (await read_versions(db, [row]))[0]


async def read_versions(db: Transaction, rows: Sequence[Any]) -> list[Version]:
    """Versions of these rows, all of one parent, with the aliases that point to them."""
    if not rows:
        return []
    pointing = sa.select(aliases.c.alias, aliases.c.version).where(
        aliases.c.parent == rows[0].parent, aliases.c.version.in_([row.number for row in rows])
    )
    names: defaultdict[int, list[str]] = defaultdict(list)
    for alias in (await db.execute(pointing.order_by(aliases.c.alias))).all():
        names[alias.version].append(alias.alias)
    return [_version(row, names[row.number]) for row in rows]


async def number_of_digest(db: Transaction, parent: str, digest: str) -> int:
    """The version whose digest begins so: a range of the index, not a comparison of every row."""
    found = versions.c.digest.between(digest, digest + "g")  # above every hexadecimal digit
    number = await db.scalar(sa.select(versions.c.number).where(versions.c.parent == parent, found).limit(1))
    if number is None:
        raise NotFound(f"{parent} has no version with digest {digest}")
    return int(number)


def _version(row: Any, names: Sequence[str]) -> Version:
    collection, _, collection_id = row.parent.partition("/")
    return Version(
        name=VersionName(collection, collection_id, row.number),
        digest=row.digest,
        manifest=Manifest.parse(row.manifest_json),
        create_time=utc(row.create_time),
        aliases=tuple(names),
    )
