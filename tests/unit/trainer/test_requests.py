"""What clients ask for while a job runs: pause and cancel, whatever else is away."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.running import (
    eventually,
    is_clean,
    kinds,
    run_dir,
    running,
    submit,
    until_checkpoint,
    until_state,
    worker_pid,
)
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import JobState


async def test_cancelling_stops_the_worker(app: TrainerApp, registry: FakeRegistry, tmp_path: Path) -> None:
    async with running(app):
        job = await submit(app, registry, "wait")
        await until_checkpoint(app, job)
        await app.store.request_cancel(job.id)
        await until_state(app, job, JobState.CANCELLED)

        with pytest.raises(ProcessLookupError):
            os.kill(worker_pid(tmp_path, job), 0)
    assert (await kinds(app, job))[-2:] == ["cancelling", "cancelled"]


async def test_a_worker_deaf_to_sigterm_is_killed(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(stop_grace_seconds=0.2)
    async with running(app):
        job = await submit(app, registry, "stall")
        await until_checkpoint(app, job)
        await app.store.request_cancel(job.id)
        await until_state(app, job, JobState.CANCELLED)


async def test_a_paused_job_goes_on_where_it_was(app: TrainerApp, registry: FakeRegistry, tmp_path: Path) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)
        await app.store.request_pause(job.id)
        await until_state(app, job, JobState.PAUSED)
        assert (run_dir(tmp_path, job) / "checkpoints" / "step-00000002").is_dir()

        await app.store.resume(job.id)
        done = await until_state(app, job, JobState.SUCCEEDED)

    assert done.lease_epoch == 2
    states = [kind for kind in await kinds(app, job) if kind in list(JobState)]
    assert states == [
        *("queued", "validating", "running", "pausing", "paused"),
        *("queued", "validating", "running", "succeeded"),
    ]


async def test_a_cancel_while_pausing_wins(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(stop_grace_seconds=0.3)
    async with running(app):
        job = await submit(app, registry, "stall")
        await until_checkpoint(app, job)
        await app.store.request_pause(job.id)
        await app.store.request_cancel(job.id)
        await until_state(app, job, JobState.CANCELLED)


async def test_a_cancel_while_it_is_merged_is_carried_to_the_registry(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.build_held = True
    async with running(app):
        job = await submit(app, registry, "succeed")
        await eventually(lambda: len(registry.builds) >= 3)
        await app.store.request_cancel(job.id)
        await until_state(app, job, JobState.CANCELLED)
    assert registry.cancelled == [(job.name, 2)]


async def test_a_cancel_after_a_restart_reaches_what_the_attempt_before_asked_for(
    build_app: BuildApp, registry: FakeRegistry
) -> None:
    registry.build_held = True
    first = await build_app()
    async with running(first):
        job = await submit(first, registry, "succeed")
        await eventually(lambda: len(registry.builds) >= 3)
    await first.store.request_cancel(job.id)  # while no trainer runs

    async with running(await build_app()):
        await eventually(lambda: registry.cancelled == [(job.name, 2)])


async def test_a_registry_that_was_away_hears_of_a_cancel_when_it_is_back(
    build_app: BuildApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    app = await build_app()
    async with running(app):
        job = await submit(app, registry, "wait")
        await until_checkpoint(app, job)
        registry.down = 1 << 30
        await app.store.request_cancel(job.id)
        await until_state(app, job, JobState.CANCELLED)
    registry.down = 0
    async with running(app):
        await eventually(lambda: registry.cancelled == [(job.name, 2)])
        await eventually(lambda: is_clean(tmp_path, job))


async def test_a_pause_does_not_wait_for_a_registry_that_is_away(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(stop_grace_seconds=0.5)
    registry.down = 1 << 30
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_state(app, job, JobState.RUNNING)
        await app.store.request_pause(job.id)
        async with asyncio.timeout(10):
            await until_state(app, job, JobState.PAUSED)
        registry.down = 0
        await app.store.resume(job.id)
        await until_state(app, job, JobState.SUCCEEDED)
    assert len(registry.versions_of(job.id)) >= 2


async def test_a_cancel_does_not_wait_for_a_registry_that_is_away(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.down = 1 << 30
    async with running(app):
        job = await submit(app, registry, "wait")
        await until_state(app, job, JobState.RUNNING)
        await app.store.request_cancel(job.id)
        async with asyncio.timeout(10):
            await until_state(app, job, JobState.CANCELLED)


async def test_a_pause_while_it_is_merged_is_heeded(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.build_held = True
    async with running(app):
        job = await submit(app, registry, "succeed", merge=True)
        await eventually(lambda: len(registry.builds) == 3)
        await app.store.request_pause(job.id)
        await until_state(app, job, JobState.PAUSED)
        registry.build_held = False
        await app.store.resume(job.id)
        done = await until_state(app, job, JobState.SUCCEEDED)
    assert done.merged_version
