"""Attempts that end early, and what the next one makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.running import (
    eventually,
    is_alive,
    kinds,
    run_dir,
    running,
    submit,
    until,
    until_checkpoint,
    until_state,
    worker_pid,
)
from tuneloom_common.notifier import Notifier
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import JobState, StateChanged
from tuneloom_trainer.store import JobQueue


async def test_a_full_disk_costs_no_try_and_is_told(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(max_attempts=1)
    async with running(app):
        job = await submit(app, registry, "full", "succeed")
        waiting = await until(app, job, lambda found: found.state is JobState.QUEUED and found.lease_epoch == 1)
    assert waiting.failed_attempts == 0
    told = [event.body for event in await app.store.events_after(job.id, 0)][-1]
    assert isinstance(told, StateChanged)
    assert told.reason.startswith("no space left where it trains")


async def test_a_crash_is_tried_again(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        job = await submit(app, registry, "crash", "succeed")
        done = await until_state(app, job, JobState.SUCCEEDED)

    assert done.lease_epoch == 2
    assert (await kinds(app, job)).count("queued") == 2
    events = await app.store.events_after(job.id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize(("word", "status"), [("crash", -9), ("lie", 0)])
async def test_a_worker_that_keeps_dying_fails_with_its_last_words(
    build_app: BuildApp, registry: FakeRegistry, word: str, status: int
) -> None:
    app = await build_app(max_attempts=2)
    async with running(app):
        failed = await until_state(app, await submit(app, registry, word), JobState.FAILED)

    assert (failed.error_reason, failed.lease_epoch) == ("WORKER_CRASHED", 2)
    assert failed.error.startswith("its worker was lost 2 times without getting further")
    assert f"the worker died with status {status}" in failed.error
    assert failed.error.endswith(f"the word is {word}")
    assert [build for build in registry.builds if build.build.target_model == "models/assistant"] == []


async def test_a_lost_lease_kills_the_worker_and_publishes_nothing_more(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    thief = JobQueue(
        app.store._database, lease=timedelta(hours=1), max_attempts=9, notifier=Notifier(), clock=lambda: later
    )
    async with running(app) as runner:
        job = await submit(app, registry, "wait")
        await until_checkpoint(app, job)
        stolen = await thief.claim()
        assert stolen is not None
        pid = worker_pid(tmp_path, job)
        await eventually(lambda: not is_alive(pid))
        assert not runner.done()

    assert await app.store.get(job.id) == stolen
    assert registry.versions_of(job.id) == [f"models/{job.id}/versions/1"]


@pytest.mark.parametrize("word", ["garble", "overtell"])
async def test_a_worker_that_breaks_the_protocol_fails_alone(
    app: TrainerApp, registry: FakeRegistry, word: str
) -> None:
    async with running(app):
        bad, good = await submit(app, registry, word), await submit(app, registry, "succeed")
        failed = await until_state(app, bad, JobState.FAILED)
        await until_state(app, good, JobState.SUCCEEDED)

    assert failed.error_reason == "WORKER_PROTOCOL"


async def test_a_worker_command_that_does_not_exist_is_named(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(worker_command=("/nowhere/python",))
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "succeed"), JobState.FAILED)

    assert "/nowhere/python" in failed.error


async def test_a_job_on_a_new_machine_starts_from_its_newest_registered_checkpoint(
    build_app: BuildApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    first = await build_app()
    async with running(first):
        job = await submit(first, registry, "wait")
        await until_checkpoint(first, job)

    torn = tmp_path / "other" / "runs" / job.id / "checkpoints" / "step-00000001.part-77"
    torn.mkdir(parents=True)  # as a machine leaves it that dies while it fetches
    second = await build_app(work_dir=tmp_path / "other")
    async with running(second):
        await until_state(second, job, JobState.RUNNING)

    assert "step-00000001" in (torn.parents[1] / "found").read_text().split()


async def test_a_host_that_comes_back_tells_no_old_news_and_goes_on_from_the_newest_attempt(
    build_app: BuildApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    first, second = await build_app(), await build_app(work_dir=tmp_path / "other")
    async with running(first):
        job = await submit(first, registry, "wait", "succeed")
        await until_checkpoint(first, job)
    assert (run_dir(tmp_path, job) / "checkpoints" / "step-00000002").is_dir()  # saved on the way out, told to nobody
    async with running(second):
        await until(second, job, lambda found: found.lease_epoch == 2 and found.state is JobState.RUNNING)
        await eventually(lambda: len(registry.versions_of(job.id)) >= 2)

    async with running(first):
        await until_state(first, job, JobState.SUCCEEDED)

    assert (run_dir(tmp_path, job) / "resumed").read_text() == "step 1 of attempt 2"
    steps = [event.body.step for event in await first.store.events_after(job.id, 0) if event.body.kind == "checkpoint"]
    assert steps == [1, 1, 1, 2]  # one of each attempt on the way, then the last one's own


async def test_a_validation_that_never_ends_is_ended(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(validation_timeout_seconds=0.3)
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "ponder"), JobState.FAILED)
    assert failed.error_reason == "VALIDATION_TIMEOUT"
    assert "TUNELOOM_TRAINER_VALIDATION_TIMEOUT_SECONDS" in failed.error
