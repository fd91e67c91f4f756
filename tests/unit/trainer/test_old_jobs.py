"""Jobs that another release stored: they run, or say why not, and never hide the others."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.conftest import BuildApp
from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
from tuneloom_common.grpc import open_channel
from tuneloom_trainer.app import TrainerApp

BY_0_1_0 = {"method": "full", "quantization": "none", "max_steps": 2, "sample_prompts": ["succeed"]}


@pytest.fixture
async def app(build_app: BuildApp) -> TrainerApp:
    return await build_app()


@pytest.fixture
async def client(app: TrainerApp) -> AsyncIterator[Any]:
    async with open_channel(f"127.0.0.1:{app.port}", token=None) as channel:
        yield TrainerServiceStub(channel)


async def stored(client: Any, tmp_path: Path, spec: dict[str, Any]) -> str:
    """A waiting job with a spec as it lies in the database; returns its name."""
    wanted = jobs_pb2.TrainingJob(base_model="seed", dataset="datasets/chats", output_model="models/assistant")
    job = await client.CreateTrainingJob(trainer_pb2.CreateTrainingJobRequest(training_job=wanted))
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("UPDATE jobs SET spec = ? WHERE id = ?", (json.dumps(spec), job.name.rpartition("/")[2]))
    name: str = job.name
    return name


async def ended(app: TrainerApp, client: Any, name: str) -> Any:
    """The job after the runner has worked on it."""
    runner = asyncio.create_task(app.runner.run())
    try:
        async for _ in client.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=name), timeout=30):
            pass
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
    return await client.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=name))


@pytest.mark.parametrize("more", [{}, {"wizardry": {"wand": 3}}], ids=["before an option", "with a dropped option"])
async def test_a_job_of_another_release_runs_to_its_end(
    app: TrainerApp, client: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    name = await stored(client, tmp_path, {**BY_0_1_0, **more})

    job = await ended(app, client, name)

    assert (job.state, job.error) == (jobs_pb2.JOB_STATE_SUCCEEDED, "")
    assert (job.spec.tuning, job.spec.max_steps) == (jobs_pb2.TUNING_FULL, 2)


async def test_a_value_that_cannot_be_read_is_refused_by_name_and_hides_no_other_job(
    app: TrainerApp, client: Any, tmp_path: Path
) -> None:
    odd = await stored(client, tmp_path, {**BY_0_1_0, "lr_scheduler": "polynomial"})
    good = await stored(client, tmp_path, BY_0_1_0)
    listed = await client.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest())
    assert [job.name for job in listed.training_jobs] == [good, odd]

    job = await ended(app, client, odd)

    assert (job.state, job.error_reason) == (jobs_pb2.JOB_STATE_FAILED, "SPEC_UNREADABLE")
    assert "spec.lr_scheduler" in job.error
