"""The registry's metadata. Every public method is one short transaction; invariants live here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tuneloom_common.bell import Bell
from tuneloom_common.database import Database, Transaction, utc
from tuneloom_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import DEFAULT_ALIAS, Reference, VersionName
from tuneloom_registry.models import (
    Alias,
    Collection,
    Fence,
    ModelEvent,
    Version,
)
from tuneloom_registry.tables import aliases, collections, fences, model_events, versions


class VersionStore:
    """Collections, versions and aliases. `bell` rings after every change that watchers care about."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self.bell = Bell()
        self._clock = clock

    async def create_collection(self, name: str, *, request_id: str = "", training_job: str = "") -> Collection:
        """Creates a model or dataset. The same request_id returns what it created before."""
        async with self._database.write() as db:
            if request_id and (made := await _made_by(db, request_id)) is not None:
                if made.name != name:
                    raise InvalidArgument(
                        f"request_id: {request_id!r} has created {made.name}; use a fresh one", field="request_id"
                    )
                return await _collection(db, made)
            if await _collection_row(db, name) is not None:
                raise AlreadyExists(f"{name} exists already; use it, or choose another name")
            await db.execute(
                collections.insert().values(
                    name=name,
                    request_id=request_id or None,
                    training_job=training_job,
                    create_time=self._clock(),
                )
            )
            return await _collection(db, await _collection_row(db, name))

    async def get_collection(self, name: str) -> Collection:
        async with self._database.read() as db:
            return await _collection(db, await _require_collection(db, name))

    async def list_collections(
        self, prefix: str, *, after: str, limit: int, include_training_jobs: bool = True
    ) -> list[Collection]:
        """Collections of one kind ("models/" or "datasets/") by name."""
        query = (
            sa.select(collections)
            .where(collections.c.name.startswith(prefix, autoescape=True), collections.c.name > after)
            .order_by(collections.c.name)
            .limit(limit)
        )
        if not include_training_jobs:
            query = query.where(collections.c.training_job == "")
        async with self._database.read() as db:
            return [await _collection(db, row) for row in (await db.execute(query)).all()]

    async def create_version(
        self, parent: str, manifest: Manifest, *, set_aliases: Sequence[str] = (), fence: Fence | None = None
    ) -> Version:
        """Registers a version; equal content in the same parent is the same version.

        The first servable version of a model becomes its default.
        """
        async with self._database.write() as db:
            version = await self.insert_version(db, parent, manifest, set_aliases=set_aliases, fence=fence)
        self.bell.ring()
        return version

    async def insert_version(
        self,
        db: Transaction,
        parent: str,
        manifest: Manifest,
        *,
        set_aliases: Sequence[str] = (),
        fence: Fence | None = None,
    ) -> Version:
        """create_version inside a caller's transaction; the caller rings the bell."""
        await _require_collection(db, parent)
        if fence:
            await _pass_fence(db, fence)
        digest = manifest.digest
        existing = (
            await db.execute(sa.select(versions).where(versions.c.parent == parent, versions.c.digest == digest))
        ).one_or_none()
        if existing is None:
            newest = sa.select(sa.func.coalesce(sa.func.max(versions.c.number), 0))
            number = (await db.execute(newest.where(versions.c.parent == parent))).scalar_one() + 1
            await db.execute(
                versions.insert().values(
                    parent=parent,
                    number=number,
                    digest=digest,
                    manifest_json=manifest.canonical().decode(),
                    create_time=self._clock(),
                )
            )
            await db.execute(model_events.insert().values(model=parent, alias="", version=number))
        else:
            number = existing.number
        wanted = list(set_aliases)
        if (
            manifest.kind.servable
            and DEFAULT_ALIAS not in wanted
            and await _alias_row(db, parent, DEFAULT_ALIAS) is None
        ):
            wanted.append(DEFAULT_ALIAS)
        for alias in wanted:
            await self._point(db, parent, alias, number)
        return await _version(db, parent, number)

    async def get_version(self, name: VersionName) -> Version:
        async with self._database.read() as db:
            return await _version(db, name.parent, name.number)

    async def list_versions(self, parent: str, *, before: int, limit: int) -> list[Version]:
        """Versions with a number below `before` (0: from the newest), newest first."""
        query = sa.select(versions).where(versions.c.parent == parent)
        if before:
            query = query.where(versions.c.number < before)
        query = query.order_by(versions.c.number.desc()).limit(limit)
        async with self._database.read() as db:
            await _require_collection(db, parent)
            pointed = await _aliases_of(db, parent)
            return [_to_version(row, pointed) for row in (await db.execute(query)).all()]

    async def resolve(self, reference: Reference) -> Version:
        """The version a reference means now; raises NotFound saying what is missing."""
        parent = reference.parent
        async with self._database.read() as db:
            row = await _require_collection(db, parent)
            collection = await _collection(db, row)
            if reference.digest:
                matches = versions.c.digest.startswith(reference.digest, autoescape=True)
                query = sa.select(versions.c.number).where(versions.c.parent == parent, matches)
                number = (await db.execute(query)).scalar()
                if number is None:
                    raise NotFound(f"{parent} has no version with digest {reference.digest}")
            elif reference.number:
                number = reference.number
            elif parent.startswith("datasets/"):
                number = collection.latest_version
            else:
                number = collection.aliases.get(reference.alias)
                if number is None:
                    known = ", ".join(sorted(collection.aliases)) or "none yet"
                    raise NotFound(f"{parent} has no alias {reference.alias!r} (aliases: {known})")
            return await _version(db, parent, number)

    async def set_alias(self, parent: str, alias: str, version: int, *, expected: int | None) -> Alias:
        """Moves an alias if it points where the caller believes (0: nowhere; None: do not check)."""
        async with self._database.write() as db:
            await _version(db, parent, version)
            row = await _alias_row(db, parent, alias)
            current = row.version if row else 0
            if expected is not None and current != expected:
                now = f"points to version {current}" if current else "does not exist"
                raise Aborted(
                    f"alias {alias!r} of {parent} {now}, not to version {expected}; read it again and decide anew",
                    metadata={"current_version": str(current)},
                )
            await self._point(db, parent, alias, version)
            moved = await _alias_row(db, parent, alias)
        self.bell.ring()
        assert moved is not None  # noqa: S101 - just written in this transaction
        return Alias(parent=parent, alias=alias, version=moved.version, update_time=utc(moved.update_time))

    async def events_after(self, sequence: int, *, limit: int = 200) -> list[ModelEvent]:
        query = (
            sa.select(model_events)
            .where(model_events.c.sequence > sequence, model_events.c.model.startswith("models/"))
            .order_by(model_events.c.sequence)
            .limit(limit)
        )
        async with self._database.read() as db:
            return [
                ModelEvent(row.sequence, row.model, row.alias, row.version) for row in (await db.execute(query)).all()
            ]

    async def last_sequence(self) -> int:
        async with self._database.read() as db:
            newest = sa.select(sa.func.coalesce(sa.func.max(model_events.c.sequence), 0))
            return int((await db.execute(newest)).scalar_one())

    async def _point(self, db: Transaction, parent: str, alias: str, version: int) -> None:
        row = await _alias_row(db, parent, alias)
        if row is None:
            statement: Any = aliases.insert().values(parent=parent, alias=alias)
        elif row.version == version:
            return
        else:
            statement = aliases.update().where(aliases.c.parent == parent, aliases.c.alias == alias)
        await db.execute(statement.values(version=version, update_time=self._clock()))
        await db.execute(model_events.insert().values(model=parent, alias=alias, version=version))


async def _pass_fence(db: Transaction, fence: Fence) -> None:
    seen = (await db.execute(sa.select(fences.c.epoch).where(fences.c.scope == fence.scope))).scalar()
    if seen is None:
        await db.execute(fences.insert().values(scope=fence.scope, epoch=fence.epoch))
    elif fence.epoch < seen:
        raise FailedPrecondition(
            f"{fence.scope}: epoch {fence.epoch} has lost its lease to epoch {seen}; nothing was registered",
            reason="LEASE_LOST",
        )
    elif fence.epoch > seen:
        await db.execute(fences.update().where(fences.c.scope == fence.scope).values(epoch=fence.epoch))


async def _collection_row(db: Transaction, name: str) -> Any:
    return (await db.execute(sa.select(collections).where(collections.c.name == name))).one_or_none()


async def _made_by(db: Transaction, request_id: str) -> Any:
    return (await db.execute(sa.select(collections).where(collections.c.request_id == request_id))).one_or_none()


async def _require_collection(db: Transaction, name: str) -> Any:
    row = await _collection_row(db, name)
    if row is None:
        kind = name.partition("/")[0]
        command = "tuneloom models list" if kind == "models" else "tuneloom data list"
        raise NotFound(f"{name} does not exist; '{command}' shows what does", metadata={"name": name})
    return row


async def _collection(db: Transaction, row: Any) -> Collection:
    newest = sa.select(sa.func.coalesce(sa.func.max(versions.c.number), 0)).where(versions.c.parent == row.name)
    return Collection(
        name=row.name,
        create_time=utc(row.create_time),
        training_job=row.training_job,
        latest_version=(await db.execute(newest)).scalar_one(),
        aliases=await _aliases_of(db, row.name),
    )


async def _aliases_of(db: Transaction, parent: str) -> dict[str, int]:
    query = sa.select(aliases.c.alias, aliases.c.version).where(aliases.c.parent == parent)
    return {row.alias: row.version for row in (await db.execute(query)).all()}


async def _alias_row(db: Transaction, parent: str, alias: str) -> Any:
    query = sa.select(aliases).where(aliases.c.parent == parent, aliases.c.alias == alias)
    return (await db.execute(query)).one_or_none()


async def _version(db: Transaction, parent: str, number: int) -> Version:
    query = sa.select(versions).where(versions.c.parent == parent, versions.c.number == number)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"{parent} has no version {number}; list its versions to see which exist")
    return _to_version(row, await _aliases_of(db, parent))


def _to_version(row: Any, pointed: dict[str, int]) -> Version:
    collection, _, collection_id = row.parent.partition("/")
    version = Version(
        name=VersionName(collection, collection_id, row.number),
        digest=row.digest,
        manifest=Manifest.parse(row.manifest_json),
        create_time=utc(row.create_time),
    )
    return replace(version, aliases=tuple(sorted(a for a, number in pointed.items() if number == row.number)))
