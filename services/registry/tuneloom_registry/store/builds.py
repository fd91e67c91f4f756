"""The queue of builds: claimed by lease, finished only by the newest claim."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tuneloom_common.database import Database, Transaction, utc
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_common.ids import new_id
from tuneloom_common.manifests import Manifest
from tuneloom_common.notifier import Notifier
from tuneloom_common.queue import LeasedQueue, Retry
from tuneloom_registry.builds import Build, BuildSpec, BuildState
from tuneloom_registry.store.fences import pass_fence
from tuneloom_registry.store.versions import MODELS, VersionStore
from tuneloom_registry.tables import builds
from tuneloom_registry.versions import Fence

QUEUED = "builds"
"""What the notifier tells runners under when there may be work; changes of one build are told under its name."""


class BuildStore:
    """Builds by id. Writes of a runner raise LeaseLost after another claim, and change nothing."""

    def __init__(
        self,
        database: Database,
        *,
        lease: timedelta,
        max_attempts: int = 5,
        notifier: Notifier | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = database
        self.notifier = notifier or Notifier()
        self._clock = clock or (lambda: datetime.now(UTC))
        self._queue = LeasedQueue(
            builds,
            waiting=[BuildState.QUEUED],
            held=[BuildState.RUNNING],
            lease=lease,
            max_attempts=max_attempts,
            clock=clock,
        )

    async def create(
        self,
        spec: BuildSpec,
        *,
        target_model: str,
        target_aliases: Sequence[str],
        fence: Fence | None,
        request_id: str = "",
    ) -> Build:
        """Queues a build. The same request_id returns the same build, which then goes on under the newer fence."""
        row = {
            "id": new_id("build"),
            "request_id": request_id or None,
            "spec": asdict(spec),
            "target_model": target_model,
            "target_aliases": list(target_aliases),
            "fence_scope": fence.scope if fence else "",
            "fence_epoch": fence.epoch if fence else 0,
            "state": BuildState.QUEUED,
            "create_time": self._clock(),
        }
        async with self._database.write() as db:
            made = await _made_by(db, request_id)
            if made is None and fence:
                await pass_fence(db, fence)
            if made is None and not await db.insert_new(builds, row, key="request_id"):
                made = await _made_by(db, request_id)  # the same request, at the same time
            if made is not None:
                _require_same(made, spec, target_model, target_aliases, request_id)
                return await _adopt(db, made, fence)
            build = await _get(db, str(row["id"]))
        self.notifier.notify(QUEUED)
        return build

    async def get(self, build_id: str) -> Build:
        async with self._database.read() as db:
            return await _get(db, build_id)

    async def list_builds(self, *, before: int, limit: int) -> list[tuple[int, Build]]:
        """(sequence, build) below a sequence (0: from the newest), newest first."""
        query = sa.select(builds).order_by(builds.c.sequence.desc()).limit(limit)
        if before:
            query = query.where(builds.c.sequence < before)
        async with self._database.read() as db:
            return [(row.sequence, _to_build(row)) for row in (await db.execute(query)).all()]

    async def request_cancel(self, build_id: str) -> Build:
        """A queued build ends at once, a running one when its runner notices; a finished one stays as it is."""
        async with self._database.write() as db:
            await self._stop(db, builds.c.id == build_id)
            build = await _get(db, build_id)
        self._changed(build)
        return build

    async def cancel_fenced(self, fence: Fence) -> list[Build]:
        """As `request_cancel`, for all that was asked for under earlier epochs; nothing more is registered for them."""
        earlier = sa.and_(builds.c.fence_scope == fence.scope, builds.c.fence_epoch < fence.epoch)
        async with self._database.write() as db:
            ids = await self._stop(db, earlier)
            await pass_fence(db, fence)
            ids += await self._stop(db, earlier)  # created while the first were looked for
            stopped = [await _get(db, build_id) for build_id in dict.fromkeys(ids)]
        for build in stopped:
            self._changed(build)
        return stopped

    # For the runner

    async def claim(self, mine: Collection[str] = ()) -> Build | None:
        """Takes the oldest build that is queued, or running under a lease that ran out."""
        async with self._database.read() as db:
            if await self._queue.next(db, mine=mine) is None:
                return None
        async with self._database.write() as db:
            row = await self._queue.next(db, mine=mine, lock=True)
            if row is None:
                return None
            lease = await self._queue.take(db, row, state=BuildState.RUNNING)
            return await _get(db, lease.id)

    async def heartbeat(self, build: Build, *, progress: str) -> None:
        async with self._database.write() as db:
            await self._queue.heartbeat(db, build.lease, progress=progress)

    async def prepared(self, build: Build) -> None:
        """Everything it needs was there: how long something may be away counts anew."""
        async with self._database.write() as db:
            await self._queue.require(db, self._queue.held(build.lease).values(unavailable_since=None))

    async def is_cancelled(self, build: Build) -> bool:
        """Whether somebody asked this build to stop."""
        async with self._database.read() as db:
            return bool(await db.scalar(sa.select(builds.c.cancel_requested).where(builds.c.id == build.id)))

    async def succeed(self, build: Build, manifest: Manifest, versions: VersionStore) -> Build:
        """Registers the result and finishes the build in one transaction, under the newest fence it was given."""
        async with self._database.write() as db:
            held = self._queue.held(build.lease).values(state=BuildState.SUCCEEDED, end_time=self._clock())
            await self._queue.require(db, held)
            now = await _get(db, build.id)
            version = await versions.insert_version(
                db, now.target_model, manifest, set_aliases=now.target_aliases, fence=now.fence
            )
            done = builds.update().where(builds.c.id == build.id)
            await db.execute(done.values(result_version=str(version.name), progress=""))
            ended = await _get(db, build.id)
        versions.notifier.notify(MODELS)
        self._changed(build)
        return ended

    async def fail(self, build: Build, error: str) -> None:
        """Ends a build without a result."""
        await self._leave(build, state=BuildState.FAILED, error=error, end_time=self._clock())

    async def cancelled(self, build: Build) -> None:
        """Ends a running build that was asked to stop."""
        await self._leave(build, state=BuildState.CANCELLED, error="cancelled on request", end_time=self._clock())

    async def put_back(self, build: Build, why: Retry, error: str) -> bool:
        """Back into the queue after an attempt without an end; fails it and returns False when that was the last."""
        async with self._database.write() as db:
            again = await self._queue.retry(db, build.lease, why)
            ended = {"state": BuildState.FAILED, "error": error, "end_time": self._clock()}
            values = ended if again is None else {"state": BuildState.QUEUED, "progress": "", **again}
            await self._queue.require(db, self._queue.held(build.lease).values(**values))
        self._changed(build)
        return again is not None

    async def _stop(self, db: Transaction, which: sa.ColumnElement[bool]) -> list[str]:
        """Ids of those that had not ended. Locked first: one may be claimed or put back at the same time."""
        live = builds.c.state.in_([BuildState.QUEUED, BuildState.RUNNING])
        query = sa.select(builds.c.id).where(which, live).order_by(builds.c.sequence).with_for_update()
        ids = list((await db.execute(query)).scalars())
        these = builds.update().where(builds.c.id.in_(ids))
        await db.execute(
            these.where(builds.c.state == BuildState.QUEUED).values(
                state=BuildState.CANCELLED, error="cancelled before it started", end_time=self._clock()
            )
        )
        await db.execute(these.where(builds.c.state == BuildState.RUNNING).values(cancel_requested=True))
        return ids

    async def _leave(self, build: Build, **values: Any) -> None:
        async with self._database.write() as db:
            await self._queue.require(db, self._queue.held(build.lease).values(**values))
        self._changed(build)

    def _changed(self, build: Build) -> None:
        self.notifier.notify(QUEUED, build.name)


async def _made_by(db: Transaction, request_id: str) -> Build | None:
    """The build that a request made before, locked."""
    if not request_id:
        return None
    query = sa.select(builds).where(builds.c.request_id == request_id).with_for_update()
    row = (await db.execute(query)).one_or_none()
    return _to_build(row) if row is not None else None


async def _adopt(db: Transaction, build: Build, fence: Fence | None) -> Build:
    """A build that was asked for again, by a newer holder of the same lease."""
    if fence and build.fence and fence.scope == build.fence.scope and fence.epoch > build.fence.epoch:
        one = builds.update().where(builds.c.id == build.id)
        await db.execute(one.values(fence_epoch=fence.epoch))
        if build.state is BuildState.FAILED and build.error.startswith(build.fence.lost):
            # It failed only because its requester had been overtaken, by whoever asks for it now.
            again = {"state": BuildState.QUEUED, "error": "", "end_time": None, "failed_attempts": 0}
            await db.execute(one.values(**again))
        return await _get(db, build.id)
    return build


def _require_same(
    made: Build, spec: BuildSpec, target_model: str, target_aliases: Sequence[str], request_id: str
) -> None:
    asked = {**asdict(spec), "target_model": target_model, "target_aliases": tuple(target_aliases)}
    before = {**asdict(made.spec), "target_model": made.target_model, "target_aliases": made.target_aliases}
    for field, value in asked.items():
        if before[field] != value:
            raise InvalidArgument(
                f"request_id: {request_id!r} has created {made.name} with {field} {before[field]!r}, not {value!r}; "
                "repeat the same request, or use a fresh id",
                field="request_id",
                reason="REQUEST_ID_REUSED",
            )


async def _get(db: Transaction, build_id: str) -> Build:
    row = (await db.execute(sa.select(builds).where(builds.c.id == build_id))).one_or_none()
    if row is None:
        raise NotFound(f"builds/{build_id} does not exist")
    return _to_build(row)


def _to_build(row: Any) -> Build:
    known = {field.name for field in fields(BuildSpec)}
    spec = {key: value for key, value in row.spec.items() if key in known}
    return Build(
        id=row.id,
        spec=BuildSpec(**{**spec, "proof_prompts": tuple(spec.get("proof_prompts", ()))}),
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
