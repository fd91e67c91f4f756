from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.unit.registry.conftest import Clock, manifest
from tuneloom_common.database import Database
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound
from tuneloom_common.queue import LeaseLost, Retry
from tuneloom_registry.builds import Build, BuildSpec, BuildState
from tuneloom_registry.store import BuildStore, VersionStore
from tuneloom_registry.versions import Fence

SPEC = BuildSpec(action="merge", source="models/a/versions/1", proof_prompts=("hi", "你好"))
LEASE_SECONDS = 10


@pytest.fixture
async def builds(engine: Database, versions: VersionStore, clock: Clock) -> BuildStore:
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
        await builds.heartbeat(build, progress=f"step {i}")
        assert await builds.claim() is None
    assert (await builds.get(build.id)).progress == "step 4"


async def test_the_old_holder_can_change_nothing(builds: BuildStore, versions: VersionStore, clock: Clock) -> None:
    await queue(builds)
    old = await claimed(builds)
    clock.advance(LEASE_SECONDS + 1)
    new = await claimed(builds)
    for write in (
        builds.heartbeat(old, progress="old"),
        builds.succeed(old, manifest("old"), versions),
        builds.fail(old, "old"),
        builds.cancelled(old),
        builds.put_back(old, Retry.STOPPED, "old"),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await builds.get(new.id) == new
    assert (await versions.get_collection("models/out")).latest_version == 0
    assert await versions.events_after(0) == []
    await builds.succeed(new, manifest("new"), versions)
    assert (await versions.get_collection("models/out")).latest_version == 1


async def test_success_registers_and_finishes_together(
    builds: BuildStore, versions: VersionStore, clock: Clock
) -> None:
    await queue(builds)
    build = await claimed(builds)
    await builds.heartbeat(build, progress="nearly")
    clock.advance(1)
    done = await builds.succeed(build, manifest("x", kind="merged"), versions)
    assert done == await builds.get(build.id)
    assert (done.state, done.result_version, done.progress) == (BuildState.SUCCEEDED, "models/out/versions/1", "")
    assert done.end_time == clock.now
    assert (await versions.get_collection("models/out")).aliases == {"canary": 1, "default": 1}
    for write in (builds.succeed(build, manifest("y"), versions), builds.heartbeat(build, progress="late")):
        with pytest.raises(LeaseLost):
            await write
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
    with pytest.raises(LeaseLost):
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
    assert not await builds.is_cancelled(build)
    assert (await builds.request_cancel(build.id)).state == BuildState.RUNNING
    assert await builds.is_cancelled(build)
    await builds.cancelled(build)
    assert (await builds.get(build.id)).state == BuildState.CANCELLED


async def test_a_cancel_outlives_the_runner_that_should_have_seen_it(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    await builds.request_cancel((await claimed(builds)).id)
    clock.advance(LEASE_SECONDS + 1)
    assert await builds.is_cancelled(await claimed(builds))


async def test_a_lost_worker_is_no_failure_until_the_tries_are_used_up(builds: BuildStore, clock: Clock) -> None:
    made = await queue(builds)
    for again in (True, True, True, True, False):
        clock.advance(60)
        assert await builds.put_back(await claimed(builds), Retry.LOST_WORKER, "killed") is again
    done = await builds.get(made.id)
    assert (done.state, done.error) == (BuildState.FAILED, "killed")


async def test_a_store_that_is_away_is_waited_for(builds: BuildStore, clock: Clock) -> None:
    await queue(builds)
    for _ in range(20):
        clock.advance(60)
        assert await builds.put_back(await claimed(builds), Retry.UNAVAILABLE, "away")


async def test_a_request_again_under_a_newer_lease_goes_on_under_it(builds: BuildStore, versions: VersionStore) -> None:
    made = await queue(builds, fence=Fence("jobs/1", 1), request_id="r-1")
    build = await claimed(builds)
    await versions.create_collection("models/other")
    await versions.create_version("models/other", manifest("x"), fence=Fence("jobs/1", 2))
    again = await queue(builds, fence=Fence("jobs/1", 2), request_id="r-1")
    assert (again.id, again.fence) == (made.id, Fence("jobs/1", 2))
    assert (await builds.succeed(build, manifest("y"), versions)).result_version == "models/out/versions/1"
    older = await queue(builds, fence=Fence("jobs/1", 1), request_id="r-1")
    assert older.fence == Fence("jobs/1", 2)


async def test_another_request_under_a_used_id_is_refused(builds: BuildStore) -> None:
    made = await queue(builds, request_id="r-1")
    with pytest.raises(InvalidArgument, match="target_model 'models/out', not 'models/other'") as caught:
        await queue(builds, request_id="r-1", target="other")
    assert caught.value.field == "request_id"
    assert made.name in caught.value.message


async def test_builds_page_from_the_newest(builds: BuildStore) -> None:
    made = [(await queue(builds)).id for _ in range(5)]
    newest = await builds.list_builds(before=0, limit=2)
    assert [build.id for _, build in newest] == made[:2:-1]
    older = await builds.list_builds(before=newest[-1][0], limit=9)
    assert [build.id for _, build in older] == made[2::-1]


async def test_a_build_that_failed_by_its_old_fence_alone_is_done_for_the_newer_holder(
    builds: BuildStore, versions: VersionStore
) -> None:
    await queue(builds, fence=Fence("jobs/1", 1), request_id="r-1")
    build = await claimed(builds)
    await versions.create_collection("models/other")
    await versions.create_version("models/other", manifest("x"), fence=Fence("jobs/1", 2))
    with pytest.raises(FailedPrecondition) as caught:
        await builds.succeed(build, manifest("y"), versions)
    await builds.fail(build, caught.value.message)
    again = await queue(builds, fence=Fence("jobs/1", 2), request_id="r-1")
    assert (again.id, again.state, again.error) == (build.id, BuildState.QUEUED, "")
    done = await builds.succeed(await claimed(builds), manifest("y"), versions)
    assert done.state is BuildState.SUCCEEDED


async def test_what_earlier_epochs_asked_for_is_stopped_and_registers_nothing_more(
    builds: BuildStore, versions: VersionStore
) -> None:
    ran, queued = [await queue(builds, fence=Fence("jobs/1", epoch), request_id=str(epoch)) for epoch in (1, 2)]
    other, newer = await queue(builds, fence=Fence("jobs/2", 1)), await queue(builds, fence=Fence("jobs/1", 3))
    claim = await claimed(builds)
    assert claim.id == ran.id

    stopped = await builds.cancel_fenced(Fence("jobs/1", 3))

    assert [build.id for build in stopped] == [ran.id, queued.id]
    assert await builds.is_cancelled(claim)
    states = [(await builds.get(build.id)).state for build in (ran, queued, other, newer)]
    assert states == [BuildState.RUNNING, BuildState.CANCELLED, BuildState.QUEUED, BuildState.QUEUED]
    late = (
        builds.succeed(claim, manifest("late"), versions),
        queue(builds, fence=Fence("jobs/1", 2)),
        versions.create_version("models/out", manifest("late"), fence=Fence("jobs/1", 2)),
    )
    for write in late:
        with pytest.raises(FailedPrecondition, match="has lost its lease to epoch 3"):
            await write
    assert (await versions.get_collection("models/out")).latest_version == 0
    assert await builds.cancel_fenced(Fence("jobs/1", 3)) == [await builds.get(ran.id)]


async def test_only_the_time_something_was_away_counts(builds: BuildStore, clock: Clock) -> None:
    """Away for 23 hours, there again, away for two hours more: not 25 hours away."""
    await queue(builds)
    assert await builds.put_back(await claimed(builds), Retry.UNAVAILABLE, "the store is away")
    clock.advance(23 * 3600)
    build = await claimed(builds)
    await builds.prepared(build)
    assert await builds.put_back(build, Retry.UNAVAILABLE, "the store is away")
    clock.advance(2 * 3600)
    assert await builds.put_back(await claimed(builds), Retry.UNAVAILABLE, "the store is away")
