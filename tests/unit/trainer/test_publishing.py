"""What a job registers, asks to be built, and moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.running import (
    eventually,
    running,
    submit,
    until_checkpoint,
    until_state,
)
from tuneloom_common.manifests import Manifest
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import JobState


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


async def test_a_build_that_fails_fails_the_job_with_its_error(app: TrainerApp, registry: FakeRegistry) -> None:
    registry.build_error = "the base is not servable"
    async with running(app):
        failed = await until_state(app, await submit(app, registry, "succeed"), JobState.FAILED)

    assert failed.error_reason == "BUILD_FAILED"
    assert "the base is not servable" in failed.error


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


async def test_a_registry_that_knows_a_later_attempt_fails_no_job(app: TrainerApp, registry: FakeRegistry) -> None:
    """As after the trainer's database came back from a backup."""
    async with running(app):
        job = await submit(app, registry, "wait", "succeed")
        registry.epochs[job.name] = 2
        done = await until_state(app, job, JobState.SUCCEEDED)
    assert done.lease_epoch == 2
