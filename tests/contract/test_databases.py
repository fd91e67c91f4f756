"""Databases of earlier releases open through today's migrations, and every row answers as it did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from tests.contract.conftest import EACH_RELEASE, answers, keeps
from tuneloom.registry.v1 import registry_pb2
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom.trainer.v1 import trainer_pb2
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

pytestmark = EACH_RELEASE
STATES = ("QUEUED", "VALIDATING", "RUNNING", "PAUSING", "PAUSED", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED")


def plain(messages: Any) -> list[dict[str, Any]]:
    return [MessageToDict(message, preserving_proto_field_name=True) for message in messages]


async def first(stream: Any, count: int) -> list[dict[str, Any]]:
    """A stream's first messages; it need not end."""
    async with asyncio.timeout(20):
        return plain([await stream.read() for _ in range(count)])


async def test_jobs_are_listed_as_they_were(release: Path, trainer: TrainerServiceStub) -> None:
    stored = answers(release, "trainer")["jobs"]
    assert {job["state"] for job in stored} == {f"JOB_STATE_{state}" for state in STATES}
    found = await trainer.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest(page_size=1000))
    assert keeps(plain(found.training_jobs), stored) == []
    for job in stored:
        one = await trainer.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=job["name"]))
        assert keeps(plain([one]), [job]) == []


async def test_events_are_streamed_as_they_were(release: Path, trainer: TrainerServiceStub) -> None:
    for name, stored in answers(release, "trainer")["events"].items():
        stream = trainer.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=name))
        assert keeps(await first(stream, len(stored)), stored) == []
        stream.cancel()


async def test_checkpoints_are_listed_as_they_were(release: Path, trainer: TrainerServiceStub) -> None:
    for name, stored in answers(release, "trainer")["checkpoints"].items():
        found = await trainer.ListCheckpoints(trainer_pb2.ListCheckpointsRequest(parent=name))
        assert keeps(plain(found.checkpoints), stored) == []


async def test_a_paused_job_can_be_resumed_and_every_other_stopped(release: Path, trainer: TrainerServiceStub) -> None:
    after = {
        "JOB_STATE_PAUSED": "CANCELLED",
        "JOB_STATE_QUEUED": "CANCELLED",
        "JOB_STATE_VALIDATING": "CANCELLING",
        "JOB_STATE_RUNNING": "CANCELLING",
        "JOB_STATE_PAUSING": "CANCELLING",
        "JOB_STATE_CANCELLING": "CANCELLING",
    }
    for job in answers(release, "trainer")["jobs"]:
        if job["state"] == "JOB_STATE_PAUSED":
            await trainer.ResumeTrainingJob(trainer_pb2.ResumeTrainingJobRequest(name=job["name"]))
        if state := after.get(job["state"]):
            asked = await trainer.CancelTrainingJob(trainer_pb2.CancelTrainingJobRequest(name=job["name"]))
            assert plain([asked])[0]["state"] == f"JOB_STATE_{state}"


async def test_collections_and_versions_are_listed_as_they_were(release: Path, registry: RegistryServiceStub) -> None:
    stored = answers(release, "registry")
    models = await registry.ListModels(registry_pb2.ListModelsRequest(include_training_jobs=True, page_size=1000))
    assert keeps(plain(models.models), stored["models"]) == []
    datasets = await registry.ListDatasets(registry_pb2.ListDatasetsRequest(page_size=1000))
    assert keeps(plain(datasets.datasets), stored["datasets"]) == []
    versions = []
    for parent in [item["name"] for item in (*stored["models"], *stored["datasets"])]:
        found = await registry.ListVersions(registry_pb2.ListVersionsRequest(parent=parent, page_size=1000))
        versions += plain(found.versions)
    assert keeps(versions, stored["versions"]) == []


async def test_every_reference_means_what_it_meant(release: Path, registry: RegistryServiceStub) -> None:
    for reference, name in answers(release, "registry")["resolved"].items():
        found = await registry.ResolveVersion(registry_pb2.ResolveVersionRequest(reference=reference))
        assert (reference, found.name) == (reference, name)


async def test_builds_are_listed_as_they_were(release: Path, registry: RegistryServiceStub) -> None:
    stored = answers(release, "registry")["builds"]
    states = ("QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")
    assert {build["state"] for build in stored} == {f"BUILD_STATE_{state}" for state in states}
    found = await registry.ListBuilds(registry_pb2.ListBuildsRequest(page_size=1000))
    assert keeps(plain(found.builds), stored) == []


async def test_watchers_go_on_from_their_cursor(release: Path, registry: RegistryServiceStub) -> None:
    stored = answers(release, "registry")["events_after_1"]
    stream = registry.WatchModels(registry_pb2.WatchModelsRequest(after_sequence=1))
    assert keeps(await first(stream, len(stored)), stored) == []
    stream.cancel()


async def test_a_retried_creation_finds_what_it_made(release: Path, registry: RegistryServiceStub) -> None:
    """Request ids outlive the upgrade."""
    again = registry_pb2.CreateModelRequest(model_id="empty", request_id="model-1")
    [made] = [model for model in answers(release, "registry")["models"] if model["name"] == "models/empty"]
    assert keeps(plain([await registry.CreateModel(again)]), [made]) == []
