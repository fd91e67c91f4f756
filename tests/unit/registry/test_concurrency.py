"""Several registries on one database: each Database here has connections of its own, as a process has."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from tests.databases.cluster import Cluster
from tests.unit.registry.conftest import Clock, manifest
from tuneloom_common.database import Database, Limits, open_database
from tuneloom_common.errors import Aborted, FailedPrecondition, Unavailable
from tuneloom_common.queue import Retry
from tuneloom_registry.builds import BuildSpec, BuildState
from tuneloom_registry.store import BuildStore, VersionStore
from tuneloom_registry.versions import Fence

MODEL = "models/a"
MOVERS = 100
SPEC = BuildSpec(action="merge", source="models/a/versions/1")


@pytest.fixture
async def processes(database_url: str) -> AsyncIterator[list[Database]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(4):
            database = await open_database(
                database_url, migrations="tuneloom_registry.migrations", limits=Limits(lock_seconds=60)
            )
            stack.push_async_callback(database.dispose)
            opened.append(database)
        yield opened


@pytest.fixture
async def stores(processes: list[Database], clock: Clock) -> list[VersionStore]:
    stores = [VersionStore(database, clock=clock) for database in processes]
    await stores[0].create_collection(MODEL)
    return stores


async def test_a_hundred_movers_of_one_alias_lose_no_update(stores: list[VersionStore]) -> None:
    """Each reads it and moves it on: every move that was acknowledged is in the history, and began where the one
    before it ended."""
    for number in range(10):
        await stores[0].create_version(MODEL, manifest(f"{number}"))
    before, chance = await stores[0].last_sequence(), random.Random(1)
    moves: list[tuple[int, int]] = []

    async def move(store: VersionStore) -> None:
        for _ in range(2):
            seen = (await store.get_collection(MODEL)).aliases["default"]
            to = (seen + chance.randint(0, 8)) % 10 + 1
            try:
                await store.set_alias(MODEL, "default", to, expected=seen)
            except Aborted:
                continue
            moves.append((seen, to))

    await asyncio.gather(*(move(stores[i % 4]) for i in range(MOVERS)))

    told = [event.version for event in await stores[1].events_after(before)]
    assert sorted(moves) == sorted(itertools.pairwise([1, *told]))
    assert len(moves) > 1
    assert (await stores[2].get_collection(MODEL)).aliases == {"default": told[-1]}


async def test_a_watcher_never_misses_a_late_commit(processes: list[Database], stores: list[VersionStore]) -> None:
    """One transaction has its number before the other and commits after it was tried."""
    await stores[0].create_collection("models/b")
    seen: list[int] = []

    async def watch() -> None:
        while len(seen) < 4:
            seen.extend(event.sequence for event in await stores[3].events_after(seen[-1] if seen else 0))
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    async with processes[0].write() as slow:
        await stores[0].insert_version(slow, MODEL, manifest("slow"))
        quick = asyncio.create_task(stores[1].create_version("models/b", manifest("quick")))
        await asyncio.sleep(0.1)
        assert not quick.done()
        assert seen == []
    async with asyncio.timeout(20):
        await quick
        await watching
    assert seen == [1, 2, 3, 4]
    assert [event.model for event in await stores[2].events_after(0)] == [MODEL, MODEL, "models/b", "models/b"]


async def test_the_same_request_to_several_registries_makes_one_thing(
    processes: list[Database], stores: list[VersionStore], clock: Clock
) -> None:
    made = await asyncio.gather(*(stores[i % 4].create_collection("models/new", request_id="r") for i in range(12)))
    assert len(set(map(str, made))) == 1
    queues = [BuildStore(database, lease=timedelta(seconds=9), clock=clock) for database in processes]
    asked = {"target_model": MODEL, "target_aliases": (), "fence": Fence("jobs/1", 1), "request_id": "r"}
    builds = await asyncio.gather(*(queues[i % 4].create(SPEC, **asked) for i in range(12)))  # type: ignore[arg-type]
    assert len({build.id for build in builds}) == 1


async def test_the_first_of_many_under_a_new_fence_is_no_error(stores: list[VersionStore]) -> None:
    for other in "bcd":
        await stores[0].create_collection(f"models/{other}")
    made = await asyncio.gather(
        *(
            store.create_version(f"models/{model}", manifest("x"), fence=Fence("jobs/1", 1))
            for store, model in zip(stores, "abcd", strict=True)
        )
    )
    assert {one.name.number for one in made} == {1}


async def test_a_build_that_is_put_back_while_it_is_cancelled_is_cancelled(
    processes: list[Database], stores: list[VersionStore], clock: Clock
) -> None:
    """Whoever comes first: after both, it runs nowhere or has been asked to stop."""
    one, other = (BuildStore(database, lease=timedelta(seconds=9), clock=clock) for database in processes[:2])
    for _ in range(10):
        queued = await one.create(SPEC, target_model=MODEL, target_aliases=(), fence=None)
        build = await one.claim()
        assert build is not None
        await asyncio.gather(one.put_back(build, Retry.STOPPED, ""), other.request_cancel(queued.id))
        again = await one.claim()
        if again is None:
            assert (await one.get(queued.id)).state is BuildState.CANCELLED
        else:
            assert await one.is_cancelled(again)
            await one.cancelled(again)


async def test_no_build_of_an_earlier_epoch_outlives_the_cancel_of_all(
    processes: list[Database], stores: list[VersionStore], clock: Clock
) -> None:
    one, other = (BuildStore(database, lease=timedelta(seconds=9), clock=clock) for database in processes[:2])
    for job in range(10):
        early, late = Fence(f"jobs/{job}", 1), Fence(f"jobs/{job}", 2)
        results = await asyncio.gather(
            *(one.create(SPEC, target_model=MODEL, target_aliases=(), fence=early) for _ in range(4)),
            other.cancel_fenced(late),
            return_exceptions=True,
        )
        assert all(isinstance(error, FailedPrecondition) for error in results if isinstance(error, BaseException))
    assert await one.claim() is None


async def test_a_server_that_cuts_and_restarts_loses_nothing_acknowledged(
    postgres: Cluster, clock: Clock, disturbed: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
) -> None:
    name = postgres.new_database()
    async with AsyncExitStack() as stack:
        stack.callback(postgres.drop, name)
        stores = []
        for _ in range(2):
            database = await open_database(postgres.url(name), migrations="tuneloom_registry.migrations")
            stack.push_async_callback(database.dispose)
            stores.append(VersionStore(database, clock=clock))
        await stores[0].create_collection(MODEL)
        acknowledged: dict[str, int] = {}

        async def register(store: VersionStore, salt: str) -> None:
            while True:
                try:
                    made = await store.create_version(MODEL, manifest(salt))
                except Unavailable:
                    await asyncio.sleep(0.02)
                else:
                    acknowledged[made.digest] = made.name.number
                    return

        async def work() -> None:
            for batch in range(20):
                await asyncio.gather(*(register(stores[i % 2], f"{batch} {i}") for i in range(10)))

        await disturbed(work)

        kept = await stores[0].list_versions(MODEL, before=0, limit=999)
        assert {one.digest: one.name.number for one in kept} == acknowledged
        assert sorted(acknowledged.values()) == list(range(1, 201))
        told = [event.version for event in await stores[0].events_after(0, limit=999) if not event.alias]
        assert told == list(range(1, 201))
