from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.unit.registry.conftest import Clock, manifest
from tuneloom_common.errors import FailedPrecondition, NotFound
from tuneloom_registry.build_store import BuildStore
from tuneloom_registry.models import Build, BuildSpec, BuildState, Fence
from tuneloom_registry.store import VersionStore

SPEC = BuildSpec(action="merge", source="models/a/versions/1", proof_prompts=("hi", "你好"))
LEASE_SECONDS = 10


@pytest.fixture
async def builds(engine: AsyncEngine, versions: VersionStore, clock: Clock) -> BuildStore:
    await versions.create_collection("models/out")
    return BuildStore(engine, lease=timedelta(seconds=LEASE_SECONDS), clock=clock)


async def queue(builds: BuildStore, *, fence: Fence | None = None, request_id: str = "", target: str = "out") -> Build:
    return await builds.create(
        SPEC, target_model=f"models/{target}", target_aliases=["canary"], fence=fence, request_id=request_id
    )


async def claimed(builds: BuildStore) -> Build:
    build = await builds.claim()
    assert build is not None
    return build


async def test_a_queued_build_is_what_was_asked_for(builds: BuildStore) -> None:
    made = await queue(builds, fence=Fence("jobs/1", 3))
    assert made == await builds.get(made.id)
    assert (made.spec, made.state, made.fence) == (SPEC, BuildState.QUEUED, Fence("jobs/1", 3))
    with pytest.raises(NotFound):
        await builds.get("build-none")


async def test_a_repeated_request_is_the_same_build(builds: BuildStore) -> None:
    made = await asyncio.gather(*(queue(builds, request_id="r-1") for _ in range(5)))
    assert len({build.id for build in made}) == 1
    assert (await queue(builds, request_id="r-2")).id != made[0].id
    assert (await queue(builds)).id != (await queue(builds)).id


async def test_the_oldest_is_claimed_first(builds: BuildStore) -> None:
    made = [(await queue(builds)).id for _ in range(3)]
    assert [(await claimed(builds)).id for _ in range(3)] == made
    assert await builds.claim() is None


async def test_many_claimers_never_share_a_build(builds: BuildStore) -> None:
    made = {(await queue(builds)).id for _ in range(3)}
    claims = [build for build in await asyncio.gather(*(builds.claim() for _ in range(12))) if build]
    assert sorted(build.id for build in claims) == sorted(made)
    assert {(build.state, build.lease_epoch) for build in claims} == {(BuildState.RUNNING, 1)}


async def test_a_lease_that_runs_out_is_claimed_again_with_a_higher_epoch(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    first = await claimed(builds)
    clock.advance(LEASE_SECONDS)
    assert await builds.claim() is None
    clock.advance(0.001)
    second = await claimed(builds)
    assert (second.id, second.lease_epoch) == (first.id, 2)


async def test_a_heartbeat_keeps_the_lease(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    build = await claimed(builds)
    for i in range(5):
        clock.advance(LEASE_SECONDS - 1)
        assert await builds.heartbeat(build, progress=f"step {i}")
        assert await builds.claim() is None
    assert (await builds.get(build.id)).progress == "step 4"


async def test_the_old_holder_can_change_nothing(builds: BuildStore, versions: VersionStore, clock: Clock) -> None:
    await queue(builds)
    old = await claimed(builds)
    clock.advance(LEASE_SECONDS + 1)
    new = await claimed(builds)
    assert not await builds.heartbeat(old, progress="old")
    assert not await builds.succeed(old, manifest("old"), versions)
    await builds.fail(old, "old")
    await builds.confirm_cancelled(old)
    assert await builds.get(new.id) == new
    assert (await versions.get_collection("models/out")).latest_version == 0
    assert await versions.events_after(0) == []
    assert await builds.succeed(new, manifest("new"), versions)
    assert (await versions.get_collection("models/out")).latest_version == 1


async def test_success_registers_and_finishes_together(
    builds: BuildStore, versions: VersionStore, clock: Clock
) -> None:
    await queue(builds)
    build = await claimed(builds)
    await builds.heartbeat(build, progress="nearly")
    clock.advance(1)
    assert await builds.succeed(build, manifest("x", kind="merged"), versions)
    done = await builds.get(build.id)
    assert (done.state, done.result_version, done.progress) == (BuildState.SUCCEEDED, "models/out/versions/1", "")
    assert done.end_time == clock.now
    assert (await versions.get_collection("models/out")).aliases == {"canary": 1, "default": 1}
    assert not await builds.succeed(build, manifest("y"), versions)
    assert not await builds.heartbeat(build, progress="late")
    assert await builds.claim() is None


async def test_a_result_under_a_lost_fence_is_not_registered(builds: BuildStore, versions: VersionStore) -> None:
    await queue(builds, fence=Fence("jobs/1", 1))
    build = await claimed(builds)
    await versions.create_collection("models/other")
    await versions.create_version("models/other", manifest("x"), fence=Fence("jobs/1", 2))
    with pytest.raises(FailedPrecondition, match="lost its lease"):
        await builds.succeed(build, manifest("y"), versions)
    assert (await versions.get_collection("models/out")).latest_version == 0
    assert (await builds.get(build.id)).state == BuildState.RUNNING


async def test_a_failed_build_stays_failed(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    build = await claimed(builds)
    await builds.fail(build, "because")
    await builds.fail(build, "again")
    done = await builds.get(build.id)
    assert (done.state, done.error, done.end_time) == (BuildState.FAILED, "because", clock.now)
    clock.advance(LEASE_SECONDS * 2)
    assert await builds.claim() is None
    assert (await builds.request_cancel(build.id)).state == BuildState.FAILED


async def test_a_queued_build_is_cancelled_at_once(builds: BuildStore) -> None:
    made = await queue(builds)
    cancelled = await builds.request_cancel(made.id)
    assert cancelled.state == BuildState.CANCELLED
    assert cancelled.end_time is not None
    assert await builds.claim() is None
    assert await builds.request_cancel(made.id) == cancelled
    with pytest.raises(NotFound):
        await builds.request_cancel("build-none")


async def test_a_running_build_is_asked_to_stop(builds: BuildStore) -> None:
    await queue(builds)
    build = await claimed(builds)
    await builds.confirm_cancelled(build)
    assert (await builds.get(build.id)).state == BuildState.RUNNING  # nobody asked
    assert (await builds.request_cancel(build.id)).state == BuildState.RUNNING
    assert not await builds.heartbeat(build, progress="")
    await builds.confirm_cancelled(build)
    assert (await builds.get(build.id)).state == BuildState.CANCELLED


async def test_a_cancel_outlives_the_builder_that_should_have_seen_it(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    await builds.request_cancel((await claimed(builds)).id)
    clock.advance(LEASE_SECONDS + 1)
    second = await claimed(builds)
    assert not await builds.heartbeat(second, progress="")
    await builds.confirm_cancelled(second)
    assert (await builds.get(second.id)).state == BuildState.CANCELLED


async def test_builds_page_from_the_newest(builds: BuildStore) -> None:
    made = [(await queue(builds)).id for _ in range(5)]
    newest = await builds.list_builds(before=0, limit=2)
    assert [build.id for _, build in newest] == made[:2:-1]
    older = await builds.list_builds(before=newest[-1][0], limit=9)
    assert [build.id for _, build in older] == made[2::-1]
