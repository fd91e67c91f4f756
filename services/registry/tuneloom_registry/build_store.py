"""The queue of builds: claimed by lease, finished only by the newest claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tuneloom_common.bell import Bell
from tuneloom_common.database import Database, utc
from tuneloom_common.errors import NotFound
from tuneloom_common.ids import new_id
from tuneloom_common.manifests import Manifest
from tuneloom_registry.models import Build, BuildSpec, BuildState, Fence
from tuneloom_registry.store import VersionStore
from tuneloom_registry.tables import builds


class BuildStore:
    """Builds by id. A claim raises the lease epoch; writes that carry an older epoch change nothing."""

    def __init__(
        self,
        database: Database,
        *,
        lease: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self.bell = Bell()
        self._lease = lease
        self._clock = clock

    async def create(
        self,
        spec: BuildSpec,
        *,
        target_model: str,
        target_aliases: Sequence[str],
        fence: Fence | None,
        request_id: str = "",
    ) -> Build:
        """Queues a build; the same request_id returns the same build."""
        async with self._database.write() as db:
            if request_id:
                found = (await db.execute(sa.select(builds).where(builds.c.request_id == request_id))).one_or_none()
                if found is not None:
                    return _to_build(found)
            build_id = new_id("build")
            await db.execute(
                builds.insert().values(
                    id=build_id,
                    request_id=request_id or None,
                    spec=asdict(spec),
                    target_model=target_model,
                    target_aliases=list(target_aliases),
                    fence_scope=fence.scope if fence else "",
                    fence_epoch=fence.epoch if fence else 0,
                    state=BuildState.QUEUED,
                    create_time=self._clock(),
                )
            )
            row = (await db.execute(sa.select(builds).where(builds.c.id == build_id))).one()
        self.bell.ring()
        return _to_build(row)

    async def get(self, build_id: str) -> Build:
        async with self._database.read() as db:
            row = (await db.execute(sa.select(builds).where(builds.c.id == build_id))).one_or_none()
        if row is None:
            raise NotFound(f"builds/{build_id} does not exist")
        return _to_build(row)

    async def list_builds(self, *, before: int, limit: int) -> list[tuple[int, Build]]:
        """(sequence, build) below a sequence (0: from the newest), newest first."""
        query = sa.select(builds).order_by(builds.c.sequence.desc()).limit(limit)
        if before:
            query = query.where(builds.c.sequence < before)
        async with self._database.read() as db:
            return [(row.sequence, _to_build(row)) for row in (await db.execute(query)).all()]

    async def claim(self) -> Build | None:
        """Takes the oldest build that is queued, or running under a lease that ran out."""
        now = self._clock()
        stalled = sa.and_(builds.c.state == BuildState.RUNNING, builds.c.lease_expire_time < now)
        query = (
            sa.select(builds)
            .where(sa.or_(builds.c.state == BuildState.QUEUED, stalled))
            .order_by(builds.c.sequence)
            .limit(1)
        )
        async with self._database.write() as db:
            row = (await db.execute(query)).one_or_none()
            if row is None:
                return None
            epoch = row.lease_epoch + 1
            claimed = await db.execute(
                builds.update()
                .where(builds.c.id == row.id, builds.c.lease_epoch == row.lease_epoch)
                .values(state=BuildState.RUNNING, lease_epoch=epoch, lease_expire_time=now + self._lease)
            )
            if claimed.rowcount == 0:
                return None
            row = (await db.execute(sa.select(builds).where(builds.c.id == row.id))).one()
        return _to_build(row)

    async def heartbeat(self, build: Build, *, progress: str) -> bool:
        """Extends the lease. False when it is lost or the build shall stop: drop the work."""
        async with self._database.write() as db:
            kept = await db.execute(
                _held(build)
                .where(builds.c.cancel_requested.is_(False))
                .values(lease_expire_time=self._clock() + self._lease, progress=progress)
            )
        return bool(kept.rowcount)

    async def succeed(self, build: Build, manifest: Manifest, versions: VersionStore) -> bool:
        """Registers the result and finishes the build in one transaction. False when the lease is lost."""
        async with self._database.write() as db:
            held = await db.execute(_held(build).values(state=BuildState.SUCCEEDED, end_time=self._clock()))
            if held.rowcount == 0:
                return False
            version = await versions.insert_version(
                db, build.target_model, manifest, set_aliases=build.target_aliases, fence=build.fence
            )
            done = builds.update().where(builds.c.id == build.id)
            await db.execute(done.values(result_version=str(version.name), progress=""))
        versions.bell.ring()
        self.bell.ring()
        return True

    async def fail(self, build: Build, error: str) -> None:
        """Ends a build without a result."""
        await self._end(build, BuildState.FAILED, error)

    async def confirm_cancelled(self, build: Build) -> None:
        """Ends a running build that was asked to stop."""
        await self._end(build, BuildState.CANCELLED, "cancelled on request", only_if_requested=True)

    async def request_cancel(self, build_id: str) -> Build:
        """A queued build ends at once, a running one when its builder notices; a finished one stays as it is."""
        async with self._database.write() as db:
            queued = builds.c.state == BuildState.QUEUED
            await db.execute(
                builds.update()
                .where(builds.c.id == build_id, queued)
                .values(state=BuildState.CANCELLED, error="cancelled before it started", end_time=self._clock())
            )
            await db.execute(
                builds.update()
                .where(builds.c.id == build_id, builds.c.state == BuildState.RUNNING)
                .values(cancel_requested=True)
            )
        self.bell.ring()
        return await self.get(build_id)

    async def _end(self, build: Build, state: BuildState, error: str, *, only_if_requested: bool = False) -> None:
        statement = _held(build)
        if only_if_requested:
            statement = statement.where(builds.c.cancel_requested.is_(True))
        async with self._database.write() as db:
            await db.execute(statement.values(state=state, error=error, end_time=self._clock()))
        self.bell.ring()


def _held(build: Build) -> sa.Update:
    """An update that applies only while this claim is the newest and the build still runs."""
    return builds.update().where(
        builds.c.id == build.id,
        builds.c.lease_epoch == build.lease_epoch,
        builds.c.state == BuildState.RUNNING,
    )


def _to_build(row: Any) -> Build:
    spec = {**row.spec, "proof_prompts": tuple(row.spec["proof_prompts"])}
    return Build(
        id=row.id,
        spec=BuildSpec(**spec),
        target_model=row.target_model,
        target_aliases=tuple(row.target_aliases),
        fence=Fence(row.fence_scope, row.fence_epoch) if row.fence_scope else None,
        state=BuildState(row.state),
        error=row.error,
        progress=row.progress,
        result_version=row.result_version,
        lease_epoch=row.lease_epoch,
        create_time=utc(row.create_time),
        end_time=utc(row.end_time) if row.end_time else None,
    )
