"""Collections, versions and aliases, and the events that tell watchers of their changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction, utc
from tuneloom_common.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import DEFAULT_ALIAS, Reference, VersionName
from tuneloom_common.notifier import Notifier
from tuneloom_registry.store.fences import pass_fence
from tuneloom_registry.store.rows import (
    alias_row,
    number_of_digest,
    read_collections,
    read_version,
    read_versions,
    require_collection,
)
from tuneloom_registry.tables import aliases, collections, counters, model_events, versions
from tuneloom_registry.versions import Alias, Collection, Fence, ModelEvent, Version

MODELS = "models"
"""What the notifier tells watchers of models under."""


class VersionStore:
    """Notifies MODELS after every change that watchers care about."""

    def __init__(
        self,
        database: Database,
        *,
        notifier: Notifier | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self.notifier = notifier or Notifier()
        self._clock = clock

    async def create_collection(self, name: str, *, request_id: str = "", training_job: str = "") -> Collection:
        """Creates a model or dataset. The same request_id returns what it created before."""
        row = {
            "name": name,
            "request_id": request_id or None,
            "training_job": training_job,
            "create_time": self._clock(),
            "latest_version": 0,
        }
        async with self._database.write() as db:
            if not await db.insert_new(collections, row):
                made = await _made_by(db, request_id)
                if made is None:
                    raise AlreadyExists(f"{name} exists already; use it, or choose another name")
                if made.name != name:
                    raise InvalidArgument(
                        f"request_id: {request_id!r} has created {made.name}; use a fresh one", field="request_id"
                    )
            return (await read_collections(db, [await require_collection(db, name)]))[0]

    async def get_collection(self, name: str) -> Collection:
        async with self._database.read() as db:
            return (await read_collections(db, [await require_collection(db, name)]))[0]

    async def list_collections(
        self, prefix: str, *, after: str, limit: int, include_training_jobs: bool = True
    ) -> list[Collection]:
        """Collections of one kind ("models/" or "datasets/") by name."""
        first = max(prefix, after)
        query = (
            sa.select(collections)
            .where(collections.c.name > first, collections.c.name < prefix + "\x7f")  # ids are ASCII
            .order_by(collections.c.name)
            .limit(limit)
        )
        if not include_training_jobs:
            query = query.where(collections.c.training_job == "")
        async with self._database.read() as db:
            return await read_collections(db, (await db.execute(query)).all())

    async def create_version(
        self, parent: str, manifest: Manifest, *, set_aliases: Sequence[str] = (), fence: Fence | None = None
    ) -> Version:
        """Registers a version; equal content in the same parent is the same version.

        The first servable version of a model becomes its default.
        """
        async with self._database.write() as db:
            version = await self.insert_version(db, parent, manifest, set_aliases=set_aliases, fence=fence)
        self.notifier.notify(MODELS)
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
        """create_version inside a caller's transaction; the caller notifies."""
        collection = await require_collection(db, parent, lock=True)
        if fence:
            await pass_fence(db, fence)
        same = sa.and_(versions.c.parent == parent, versions.c.digest == manifest.digest)
        number = await db.scalar(sa.select(versions.c.number).where(same))
        if number is None:
            number = collection.latest_version + 1
            await self._add(db, parent, number, manifest)
        for alias in await _wanted(db, parent, manifest, set_aliases):
            await self._point(db, parent, alias, number)
        return await read_version(db, parent, number)

    async def get_version(self, name: VersionName) -> Version:
        async with self._database.read() as db:
            return await read_version(db, name.parent, name.number)

    async def list_versions(self, parent: str, *, before: int, limit: int) -> list[Version]:
        """Versions with a number below `before` (0: from the newest), newest first."""
        query = sa.select(versions).where(versions.c.parent == parent)
        if before:
            query = query.where(versions.c.number < before)
        query = query.order_by(versions.c.number.desc()).limit(limit)
        async with self._database.read() as db:
            await require_collection(db, parent)
            return await read_versions(db, (await db.execute(query)).all())

    async def find_digest(self, digest: str, *, parent: str = "") -> Version | None:
        """The version with this digest in a collection, or in any."""
        query = sa.select(versions).where(versions.c.digest == digest).limit(1)
        if parent:
            query = query.where(versions.c.parent == parent)
        async with self._database.read() as db:
            found = await read_versions(db, (await db.execute(query)).all())
        return found[0] if found else None

    async def resolve(self, reference: Reference) -> Version:
        """The version a reference means now; raises NotFound saying what is missing."""
        parent = reference.parent
        async with self._database.read() as db:
            collection = await require_collection(db, parent)
            if reference.digest:
                number = await number_of_digest(db, parent, reference.digest)
            elif reference.number:
                number = reference.number
            elif parent.startswith("datasets/"):
                number = collection.latest_version
            elif (row := await alias_row(db, parent, reference.alias)) is not None:
                number = row.version
            else:
                some = sa.select(aliases.c.alias).where(aliases.c.parent == parent).order_by(aliases.c.alias).limit(20)
                known = ", ".join((await db.execute(some)).scalars()) or "none yet"
                raise NotFound(f"{parent} has no alias {reference.alias!r} (aliases: {known})")
            return await read_version(db, parent, number)

    async def set_alias(self, parent: str, alias: str, version: int, *, expected: int | None) -> Alias:
        """Moves an alias if it points where the caller believes (0: nowhere; None: do not check)."""
        async with self._database.write() as db:
            await require_collection(db, parent, lock=True)
            await read_version(db, parent, version)
            row = await alias_row(db, parent, alias, lock=True)
            current = row.version if row else 0
            if expected is not None and current != expected:
                now = f"points to version {current}" if current else "does not exist"
                raise Aborted(
                    f"alias {alias!r} of {parent} {now}, not to version {expected}; read it again and decide anew",
                    metadata={"current_version": str(current)},
                )
            await self._point(db, parent, alias, version)
            moved = await alias_row(db, parent, alias)
        self.notifier.notify(MODELS)
        return Alias(parent=parent, alias=alias, version=moved.version, update_time=utc(moved.update_time))

    async def events_after(self, sequence: int, *, limit: int = 200) -> list[ModelEvent]:
        query = (
            sa.select(model_events)
            .where(model_events.c.sequence > sequence, model_events.c.model.startswith("models/"))
            .order_by(model_events.c.sequence)
            .limit(limit)
        )
        async with self._database.read() as db:
            rows = (await db.execute(query)).all()
        return [ModelEvent(row.sequence, row.model, row.alias, row.version) for row in rows]

    async def last_sequence(self) -> int:
        async with self._database.read() as db:
            return int(await db.scalar(sa.select(counters.c.value).where(counters.c.name == model_events.name)) or 0)

    async def _add(self, db: Transaction, parent: str, number: int, manifest: Manifest) -> None:
        await db.execute(
            versions.insert().values(
                parent=parent,
                number=number,
                digest=manifest.digest,
                manifest_json=manifest.canonical().decode(),
                create_time=self._clock(),
            )
        )
        newest = collections.update().where(collections.c.name == parent)
        await db.execute(newest.values(latest_version=number))
        await _tell(db, parent, alias="", version=number)

    async def _point(self, db: Transaction, parent: str, alias: str, version: int) -> None:
        row = await alias_row(db, parent, alias, lock=True)
        if row is None:
            statement: Any = aliases.insert().values(parent=parent, alias=alias)
        elif row.version == version:
            return
        else:
            statement = aliases.update().where(aliases.c.parent == parent, aliases.c.alias == alias)
        await db.execute(statement.values(version=version, update_time=self._clock()))
        await _tell(db, parent, alias=alias, version=version)


async def _tell(db: Transaction, parent: str, *, alias: str, version: int) -> None:
    """Adds an event. The counter's row is locked until the commit, so events become visible in their order."""
    mine = counters.c.name == model_events.name
    await db.execute(counters.update().where(mine).values(value=counters.c.value + 1))
    sequence = await db.scalar(sa.select(counters.c.value).where(mine))
    await db.execute(model_events.insert().values(sequence=sequence, model=parent, alias=alias, version=version))


async def _wanted(db: Transaction, parent: str, manifest: Manifest, asked: Sequence[str]) -> list[str]:
    """The aliases to point to a new version: those asked for, and the default of a model that has none.

    Among the checkpoints of one job the default only moves forward, in whatever order their conversions end.
    """
    current = await alias_row(db, parent, DEFAULT_ALIAS)
    if current is None:
        add_default = manifest.kind.servable and DEFAULT_ALIAS not in asked
        return [*asked, DEFAULT_ALIAS] if add_default else [*asked]
    if DEFAULT_ALIAS in asked and _is_later((await read_version(db, parent, current.version)).manifest, than=manifest):
        return [alias for alias in asked if alias != DEFAULT_ALIAS]
    return [*asked]


def _is_later(manifest: Manifest, *, than: Manifest) -> bool:
    """Whether both come from the same job and the first from a later step."""
    ours, theirs = manifest.lineage, than.lineage
    if ours is None or theirs is None or ours.job != theirs.job:
        return False
    return ours.step is not None and theirs.step is not None and ours.step > theirs.step


async def _made_by(db: Transaction, request_id: str) -> Any:
    """The collection that a request made before."""
    if not request_id:
        return None
    return (await db.execute(sa.select(collections).where(collections.c.request_id == request_id))).one_or_none()
