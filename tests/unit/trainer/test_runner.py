"""What becomes of a job, whatever its worker and its lease do. Workers are real processes, the registry a fake."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tuneloom_common.manifests import Manifest
from tuneloom_common.notifier import Notifier
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import Artifact, Job, JobState, StateChanged
from tuneloom_trainer.specs import load_recipes, resolve
from tuneloom_trainer.store import JobQueue
from tuneloom_trainer.store.jobs import NewJob


@pytest.fixture
async def app(build_app: BuildApp) -> TrainerApp:
    return await build_app()


@asynccontextmanager
async def running(app: TrainerApp) -> AsyncIterator[asyncio.Task[None]]:
    """The runner at work; shuts down as SIGTERM would."""
    task = asyncio.create_task(app.runner.run())
    try:
        yield task
    finally:
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(task, return_exceptions=True)


async def submit(app: TrainerApp, registry: FakeRegistry, *words: str, merge: bool = False, **more: Any) -> Job:
    """Queues a job whose worker does one word per attempt."""
    base, data = registry.references["seed"], registry.references["datasets/chats"]
    return await app.store.create(
        NewJob(
            base_model="seed",
            base=Artifact(base.name, base.digest),
            dataset=Artifact(data.name, data.digest),
            output_model="models/assistant",
            recipe="qlora",
            spec=resolve(load_recipes(), "qlora", {"sample_prompts": words}),
            merge=merge,
            **more,
        )
    )


async def until(app: TrainerApp, job: Job, holds: Callable[[Job], bool]) -> Job:
    """Waits for the job to become so."""
    with app.store.notifier.subscribe(job.name) as changes:
        async with asyncio.timeout(60):
            while not holds(found := await app.store.get(job.id)):
                await changes.wait(0.1)
    return found


async def until_state(app: TrainerApp, job: Job, state: JobState) -> Job:
    return await until(app, job, lambda found: found.state is state)


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what tells nobody when it comes true: files, processes, calls to a fake."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_checkpoint(app: TrainerApp, job: Job, step: int = 1) -> None:
    with app.store.notifier.subscribe(job.name) as changes:
        async with asyncio.timeout(60):
            while step not in [found.step for found in await app.store.list_checkpoints(job.id, before=0, limit=9)]:
                await changes.wait(0.1)


async def kinds(app: TrainerApp, job: Job) -> list[str]:
    """The events' kinds, states by their names."""
    events = await app.store.events_after(job.id, 0)
    return [event.body.state if isinstance(event.body, StateChanged) else event.body.kind for event in events]


def run_dir(tmp_path: Path, job: Job) -> Path:
    return tmp_path / "work" / "runs" / job.id


def is_clean(tmp_path: Path, job: Job) -> bool:
    return not {path.name for path in run_dir(tmp_path, job).iterdir()} & {"base", "data", "checkpoints"}


def worker_pid(tmp_path: Path, job: Job) -> int:
    return int((run_dir(tmp_path, job) / "pid").read_text())


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


async def test_published_checkpoints_say_where_they_come_from(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        job = await submit(app, registry, "succeed")
        await until_state(app, job, JobState.SUCCEEDED)

    version = registry.references[f"models/{job.id}/versions/2"]
    manifest = Manifest.parse(version.manifest_json)
    assert manifest.kind == "checkpoint"
    assert manifest.base is not None
    assert (manifest.base.model, manifest.base.digest) == ("seed", registry.references["seed"].digest)
    assert manifest.lineage is not None
    assert (manifest.lineage.job, manifest.lineage.step) == (job.id, 2)
    assert manifest.template is not None
    assert manifest.template.stop_tokens == ("<|im_end|>",)


async def test_a_registry_that_restarts_is_waited_for(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.down = 1
    async with running(app):
        await until_state(app, await submit(app, registry, "succeed"), JobState.SUCCEEDED)


async def test_a_workers_own_failure_ends_the_job_with_its_reason(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "fail"), JobState.FAILED)

    assert (failed.error_reason, failed.error, failed.lease_epoch) == ("DATA_CONTRACT", "row 3 is bad", 1)
    assert failed.end_time is not None


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
        await eventually(lambda: not _alive(pid))
        assert not runner.done()

    assert await app.store.get(job.id) == stolen
    assert registry.versions_of(job.id) == [f"models/{job.id}/versions/1"]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_shutdown_lets_the_worker_save_and_requeues(
    app: TrainerApp, registry: FakeRegistry, tmp_path: Path
) -> None:
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)

    assert (await app.store.get(job.id)).state is JobState.QUEUED
    assert (run_dir(tmp_path, job) / "checkpoints" / "step-00000002").is_dir()
    assert not _alive(worker_pid(tmp_path, job))

    async with running(app):
        await until_state(app, job, JobState.SUCCEEDED)
    assert (await kinds(app, job)).count("checkpoint") == 4  # what was saved while shutting down is told, once


async def test_shutdown_of_an_idle_runner_is_immediate(app: TrainerApp) -> None:
    async with running(app) as task:
        await asyncio.sleep(0)
    assert task.cancelled()


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


async def test_a_build_that_fails_fails_the_job_with_its_error(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.build_error = "the base is not servable"
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "succeed"), JobState.FAILED)

    assert failed.error_reason == "BUILD_FAILED"
    assert "the base is not servable" in failed.error


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


async def test_two_slots_run_two_jobs(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(slots=2)
    async with running(app):
        jobs = [await submit(app, registry, "wait") for _ in range(3)]
        for job in jobs[:2]:
            await until_checkpoint(app, job)
        assert (await app.store.get(jobs[2].id)).state is JobState.QUEUED


async def test_success_moves_the_default_of_the_output_model(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.aliases = {"default": 0}
    async with running(app):
        await until_state(app, await submit(app, registry, "succeed"), JobState.SUCCEEDED)
    assert registry.aliases == {"default": 1}


@pytest.mark.parametrize(("promote", "default"), [(False, 0), (True, 7)])
async def test_the_default_stays_when_it_is_newer_or_the_job_says_so(
    app: TrainerApp, registry: FakeRegistry, promote: bool, default: int
) -> None:
    registry.aliases = {"default": default}
    async with running(app):
        await until_state(app, await submit(app, registry, "succeed", promote=promote), JobState.SUCCEEDED)
    assert registry.aliases == {"default": default}


async def test_a_failed_merge_moves_no_default(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.aliases = {"default": 0}
    registry.merge_error = "not proven"
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "succeed", merge=True), JobState.FAILED)
    assert failed.result_version == "models/assistant/versions/1"
    assert registry.aliases == {"default": 0}


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


async def test_finished_work_is_not_done_again(build_app: BuildApp, registry: FakeRegistry, tmp_path: Path) -> None:
    """The trainer goes down between the last step and the merged model; the next one needs no worker."""
    registry.build_held = True
    app = await build_app()
    async with running(app):
        job = await submit(app, registry, "succeed", merge=True)
        await until_checkpoint(app, job, step=2)
        await eventually(lambda: len(registry.builds) >= 3)
    asked = [build.request_id for build in registry.builds]

    registry.build_held = False
    again = await build_app(worker_command=("/nowhere/python",))
    async with running(again):
        done = await until_state(again, job, JobState.SUCCEEDED)

    assert done.lease_epoch == 2
    assert [build.request_id for build in registry.builds][: len(asked)] == asked
    assert len(registry.builds) == len(asked) + 1  # the merge


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


async def test_a_validation_that_never_ends_is_ended(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(validation_timeout_seconds=0.3)
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "ponder"), JobState.FAILED)
    assert failed.error_reason == "VALIDATION_TIMEOUT"
    assert "TUNELOOM_TRAINER_VALIDATION_TIMEOUT_SECONDS" in failed.error


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
            raise OperationalError("UPDATE", (), Exception("the server is gone"))

        database.write = away  # type: ignore[method-assign]
        await asyncio.sleep(2.5)  # longer than the lease
        database.write = write  # type: ignore[method-assign]
        assert _alive(pid)
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
            await app.runner._queue.note(await app.store.get(jobs[0].id), f"{number}")
        await asyncio.sleep(1.0)
        quarters = (asyncio.get_running_loop().time() - began) / 0.5
    assert len(beats) <= 8 * (quarters + 1)


async def test_a_checkpoint_saved_by_a_pause_answers_too(app: TrainerApp, registry: FakeRegistry) -> None:
    async with running(app):
        job = await submit(app, registry, "wait")
        await until_checkpoint(app, job)
        await app.store.request_pause(job.id)
        await until_state(app, job, JobState.PAUSED)
    asked = {alias for request in registry.builds for alias in request.build.target_aliases}
    assert asked == {"1", "2", "default"}


async def test_an_attempt_asks_again_for_the_checkpoints_of_those_before(
    build_app: BuildApp, registry: FakeRegistry
) -> None:
    """Their builds would end under a lease that is lost."""
    registry.build_held = True
    app = await build_app()
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        await until_checkpoint(app, job)
        await eventually(lambda: len(registry.builds) == 1)
    registry.build_held = False
    async with running(app):
        await until_state(app, job, JobState.SUCCEEDED)
    epochs = [asked.build.fence.epoch for asked in registry.asked if "1" in asked.build.target_aliases]
    assert epochs[:2] == [1, 2]


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
