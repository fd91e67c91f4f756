"""What becomes of a job, whatever its worker and its lease do. Workers are real processes, the registry a fake."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.running import (
    eventually,
    is_alive,
    is_clean,
    kinds,
    run_dir,
    running,
    submit,
    until,
    until_checkpoint,
    until_state,
    worker_pid,
)
from tuneloom_common.errors import Unavailable
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import Job, JobState
from tuneloom_trainer.training_events import Note


async def test_a_job_trains_publishes_and_succeeds(app: TrainerApp, registry: FakeRegistry, tmp_path: Path) -> None:
    async with running(app):
        job = await submit(app, registry, "succeed", merge=True)
        done = await until_state(app, job, JobState.SUCCEEDED)
        await eventually(lambda: is_clean(tmp_path, job))

    told = await kinds(app, job)
    assert [kind for kind in told if kind in list(JobState)] == ["queued", "validating", "running", "succeeded"]
    assert told.count("progress") == 1
    assert told[-4:] == ["checkpoint", "note", "note", "succeeded"]  # registered in order, beside the training
    assert told.count("checkpoint") == 2
    assert (done.result_version, done.merged_version) == ("models/assistant/versions/1", "models/assistant/versions/2")
    assert done.progress is not None
    assert done.progress.step == 2
    assert len(registry.versions_of(job.id)) == 2
    converted = [
        build.build.convert.checkpoint for build in registry.builds if build.build.target_model.endswith("ant")
    ]
    assert converted[0] == f"models/{job.id}/versions/2"
    assert {"events-000001.jsonl", "worker.log"} <= {path.name for path in run_dir(tmp_path, job).iterdir()}


async def test_a_registry_that_restarts_is_waited_for(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.down = 1
    async with running(app):
        await until_state(app, await submit(app, registry, "succeed"), JobState.SUCCEEDED)


async def test_a_workers_own_failure_ends_the_job_with_its_reason(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "fail"), JobState.FAILED)

    assert (failed.error_reason, failed.error, failed.lease_epoch) == ("DATA_CONTRACT", "row 3 is bad", 1)
    assert failed.end_time is not None


async def test_shutdown_lets_the_worker_save_and_requeues(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)

    assert (await app.store.get(job.id)).state is JobState.QUEUED
    assert (run_dir(tmp_path, job) / "checkpoints" / "step-00000002").is_dir()
    assert not is_alive(worker_pid(tmp_path, job))

    async with running(app):
        await until_state(app, job, JobState.SUCCEEDED)
    assert (await kinds(app, job)).count("checkpoint") == 4  # what was saved while shutting down is told, once


async def test_shutdown_of_an_idle_runner_is_immediate(app: TrainerApp) -> None:
    async with running(app) as task:
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_two_slots_run_two_jobs(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(slots=2)
    async with running(app):
        jobs = [await submit(app, registry, "wait") for _ in range(3)]
        for job in jobs[:2]:
            await until_checkpoint(app, job)
        assert (await app.store.get(jobs[2].id)).state is JobState.QUEUED


@pytest.mark.parametrize("word", ["fail", "wait"])
async def test_jobs_that_end_leave_no_files_behind(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path, word: str
) -> None:
    """One fails; one is cancelled while it is paused, when no runner holds it."""
    async with running(app):
        job = await submit(app, registry, word)
        if word == "wait":
            await until_checkpoint(app, job)
            await app.store.request_pause(job.id)
            await until_state(app, job, JobState.PAUSED)
            await app.store.request_cancel(job.id)
        await until(app, job, lambda found: found.state.final)
    async with running(app):  # the next start sweeps
        await eventually(lambda: is_clean(tmp_path, job))


async def test_a_database_that_is_away_ends_neither_worker_nor_job(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)
        pid = worker_pid(tmp_path, job)
        database, write = app.store._database, app.store._database.write

        def away() -> Any:
            raise Unavailable("the server is gone")

        database.write = away  # type: ignore[method-assign]
        await asyncio.sleep(2.5)  # longer than the lease
        database.write = write  # type: ignore[method-assign]
        assert is_alive(pid)
        await app.store.request_pause(job.id)
        paused = await until_state(app, job, JobState.PAUSED)
    assert paused.lease_epoch == 1


async def test_heartbeats_are_a_commit_per_job_and_quarter_lease(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(slots=8, lease_seconds=2.0)
    beats: list[str] = []
    heartbeat = app.runner._queue.heartbeat

    async def counting(job: Job) -> JobState:
        beats.append(job.id)
        return await heartbeat(job)

    app.runner._queue.heartbeat = counting  # type: ignore[method-assign]
    async with running(app):
        jobs = [await submit(app, registry, "wait") for _ in range(8)]
        for job in jobs:
            await until_checkpoint(app, job)
        beats.clear()
        began = asyncio.get_running_loop().time()
        for number in range(100):  # one job's news wake nobody else
            told = await app.store.get(jobs[0].id)
            await app.runner._queue.append_events(told, [Note(text="x")], worker_sequence=1000 + number)
        await asyncio.sleep(1.0)
        quarters = (asyncio.get_running_loop().time() - began) / 0.5
    assert len(beats) <= 8 * (quarters + 1)
