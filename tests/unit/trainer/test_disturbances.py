"""A trainer whose PostgreSQL is restarted and cut off in mid-work goes on; so do those who watch its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.databases.cluster import Cluster
from tests.unit.trainer.conftest import BuildApp, CreateJob
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.test_runner import running, submit, until_checkpoint, until_state
from tuneloom_client.trainer import TrainerClient
from tuneloom_common.errors import Unavailable
from tuneloom_common.patience import patient
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import JobState
from tuneloom_trainer.store import JobStore

Disturbed = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


@pytest.fixture
async def app(build_app: BuildApp, postgres: Cluster) -> TrainerApp:
    name = postgres.new_database()
    return await build_app(database_url=postgres.url(name), lease_seconds=5.0)


async def test_a_job_and_its_watcher_outlive_a_restart_and_cuts(
    app: TrainerApp, registry: FakeRegistry, postgres: Cluster
) -> None:
    waits: list[Unavailable] = []
    client = TrainerClient.at(f"127.0.0.1:{app.port}", token=None)
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)

        async def watch() -> list[int]:
            return [event.sequence async for event in client.watch(job.name, on_wait=waits.append)]

        watching = asyncio.create_task(watch())
        for disturb in (postgres.stop, postgres.start, postgres.cut_all, postgres.restart):
            disturb()
            await asyncio.sleep(1.5)  # both poll once a second at least
        assert not watching.done()
        assert waits[0].reason == "DATABASE_AWAY"
        await patient(lambda: app.store.request_pause(job.id), what="pause")
        paused = await until_state(app, job, JobState.PAUSED)
        assert paused.lease_epoch == 1
        await app.store.resume(job.id)
        await until_state(app, job, JobState.SUCCEEDED)
        async with asyncio.timeout(20):
            seen = await watching
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == len(await app.store.events_after(job.id, 0))
    await client.close()


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_acknowledged_jobs_are_kept_and_made_once(
    disturbed: Disturbed, create: CreateJob, store: JobStore
) -> None:
    acknowledged: dict[str, str] = {}

    async def submit(request_id: str) -> None:
        acknowledged[request_id] = (await patient(lambda: create(request_id=request_id), what="create")).id

    async def work() -> None:
        for batch in range(20):
            await asyncio.gather(*(submit(f"{batch}-{i}") for i in range(5)))

    await disturbed(work)

    kept = [job.id for _, job in await store.list_jobs(before=0, limit=999)]
    assert sorted(kept) == sorted(acknowledged.values())
    assert len(set(kept)) == 100
    for job_id in kept:
        assert [event.sequence for event in await store.events_after(job_id, 0)] == [1]
