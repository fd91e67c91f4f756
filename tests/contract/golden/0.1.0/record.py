"""Wrote the golden files beside it. Runs with release 0.1.0 only (`git checkout v0.1.0`); no test needs it.

    TUNELOOM_HOME=/var/lib/tuneloom python record.py PATH_OF_THE_CHECKOUT

Real services, real workers and real builds on the seed model; then the stores' own methods for the states that no
job stays in: what is recorded was written by 0.1.0, not typed by hand.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from tuneloom.registry.v1 import registry_pb2
from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_cli.home import Home, Ports
from tuneloom_cli.services import Services, connect
from tuneloom_cli.uploads import upload_base, upload_dataset
from tuneloom_registry import app as registry_app
from tuneloom_registry.build_store import BuildStore
from tuneloom_registry.models import BuildSpec, Fence
from tuneloom_registry.settings import RegistrySettings
from tuneloom_registry.store import VersionStore
from tuneloom_trainer import app as trainer_app
from tuneloom_trainer.jobs import Artifact, Job, JobState
from tuneloom_trainer.settings import TrainerSettings
from tuneloom_trainer.store import JobStore

OUT = Path(__file__).parent
LONG_LEASE = timedelta(days=1)
SHORT = {"max_steps": 4, "batch_size": 1, "logging_steps": 2, "save_steps": 2, "max_length": 256}


async def main(checkout: Path) -> None:
    home = Home.locate()
    connection = home.prepare(Ports())
    url = {name: f"sqlite+aiosqlite:///{home.path}/{name}.db" for name in ("registry", "trainer")}
    async with AsyncExitStack() as stack:
        registry = await registry_app.build(
            RegistrySettings(
                database_url=url["registry"],
                objects_url=home.objects_url,
                work_dir=home.path / "registry",
                token=connection.service_token,
            ),
            stack,
        )
        trainer = await trainer_app.build(
            TrainerSettings(
                database_url=url["trainer"],
                objects_url=home.objects_url,
                work_dir=home.path / "trainer",
                token=connection.service_token,
                registry_token=connection.service_token,
                worker_device="cpu",
            ),
            stack,
        )
        await registry.server.start()
        await trainer.server.start()
        services = await stack.enter_async_context(connect(connection))
        loops = [asyncio.create_task(registry.builder.run()), asyncio.create_task(trainer.runner.run())]
        await run_jobs(services, home, checkout)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await jobs_in_between(JobStore(trainer.store.engine, lease=LONG_LEASE))
        await builds_in_between(registry.versions, BuildStore(registry.builds.engine, lease=LONG_LEASE))
        save("answers/registry.json", await registry_answers(services))
        save("answers/trainer.json", await trainer_answers(services))
    for name in ("registry", "trainer"):
        with sqlite3.connect(home.path / f"{name}.db") as database:
            (OUT / f"{name}.sql").write_text("\n".join(database.iterdump()) + "\n")
            if name == "trainer":
                query = "select output_model, spec from jobs where output_model != 'models/later'"
                for output, spec in database.execute(query):
                    save(f"specs/{output.partition('/')[2]}.json", json.loads(spec))
    for path in (home.path / "objects" / "manifests").glob("*.json"):
        kind = json.loads(path.read_bytes())["kind"]
        keep(path, f"manifests/{kind}-{path.name}")
    keep(home.connection_file, "home/connection.json")


async def run_jobs(services: Services, home: Home, checkout: Path) -> None:
    """Every kind of job to its end; what the workers read and wrote is kept."""
    await upload_base(services, "seed", checkout / "models/seed/weights")
    rows = (checkout / "models/seed/ordinary.jsonl").read_text("utf-8").splitlines()[:40]
    data = home.path / "rows.jsonl"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    await upload_dataset(services, "ordinary", data)
    await services.registry.CreateModel(registry_pb2.CreateModelRequest(model_id="empty", request_id="model-1"))
    jobs = {
        "lora": {"merge": True, "spec": {**SHORT, "sample_prompts": ["Hello!", "你好"]}},
        "full": {"spec": SHORT},
        "qlora": {"spec": {**SHORT, "seed": 7, "learning_rate": 1e-3, "lora": {"r": 4, "use_rslora": True}}},
        "failed": {"recipe": "lora", "spec": {**SHORT, "max_length": 8, "sample_prompts": []}},
    }
    for name, wanted in jobs.items():
        spec = jobs_pb2.TrainingSpec(**{k: v for k, v in wanted["spec"].items() if k != "lora"})
        spec.lora.MergeFrom(jobs_pb2.LoraSpec(**wanted["spec"].get("lora", {})))
        job = await services.trainer.CreateTrainingJob(
            trainer_pb2.CreateTrainingJobRequest(
                training_job=jobs_pb2.TrainingJob(
                    base_model="seed",
                    dataset="datasets/ordinary",
                    output_model=f"models/{name}",
                    recipe=wanted.get("recipe", name),
                    merge=wanted.get("merge", False),
                    spec=spec,
                ),
                request_id=f"request-{name}",
            )
        )
        run_dir = home.path / "trainer" / "runs" / job.name.partition("/")[2]
        keeper = asyncio.create_task(keep_records(run_dir, name))
        async for event in services.trainer.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=job.name)):
            print(name, str(event).replace("\n", " ")[:150])
        keeper.cancel()
        keep(run_dir / "spec.json", f"worker/{name}/spec.json")
        keep(run_dir / "events.jsonl", f"worker/{name}/events.jsonl")


async def keep_records(run_dir: Path, name: str) -> None:
    """Checkpoint records go with the checkpoints when the job has succeeded."""
    while True:
        for path in (run_dir / "checkpoints").glob("step-????????/checkpoint.json"):
            with suppress(FileNotFoundError):
                keep(path, f"worker/{name}/checkpoint.json")
        await asyncio.sleep(0.02)


async def jobs_in_between(store: JobStore) -> None:
    """One job in each state that a runner passes through, with its lease; then two that nobody holds."""
    done = (await store.list_jobs(before=0, limit=50))[-1][1]
    for state in ("validating", "running", "pausing", "cancelling", "paused", "crashed"):
        await create(store, done, f"request-{state}")
        job = await store.claim()
        assert job is not None
        if state != "validating":
            await store.enter_running(job)
            progress = {"step": 2, "total_steps": 4, "loss": 1.5, "tokens_per_second": 10.5, "eta_seconds": 2.0}
            await store.append_events(job, [("progress", progress)], worker_sequence=5)
            await store.add_checkpoint(job, step=2, version=f"models/{job.id}/versions/1", loss=1.5)
        if state in ("pausing", "paused"):
            await store.request_pause(job.id)
        if state == "paused":
            await store.finish(job, JobState.PAUSED)
        if state == "cancelling":
            await store.request_cancel(job.id)
        if state == "crashed":
            await store.requeue_crashed(job, "the worker died with status -9; starting again")
            assert (await store.claim()) is not None
    await store.request_cancel((await create(store, done, "request-cancelled")).id)
    await create(store, done, "")


async def create(store: JobStore, like: Job, request_id: str) -> Job:
    return await store.create(
        base_model="seed",
        base=Artifact(like.base.name, like.base.digest),
        dataset=Artifact(like.dataset.name, like.dataset.digest),
        output_model="models/later",
        recipe="lora",
        spec=like.spec,
        merge=True,
        request_id=request_id,
    )


async def builds_in_between(versions: VersionStore, builds: BuildStore) -> None:
    """Builds that run, shall stop, failed, were cancelled and wait; an alias moved by hand."""
    spec = BuildSpec("merge", "models/lora/versions/1", proof_prompts=("Hi", "嗨"), min_greedy_agreement=0.995)
    for state in ("running", "stopping", "failed", "cancelled", "queued"):
        made = await builds.create(
            spec,
            target_model="models/lora",
            target_aliases=("candidate",),
            fence=Fence("trainingJobs/job-x", 3),
            request_id=f"build-{state}",
        )
        if state in ("running", "stopping", "failed"):
            build = await builds.claim()
            assert build is not None
            assert await builds.heartbeat(build, progress="merged 3 of 9 tensors")
            if state == "failed":
                await builds.fail(build, "the merged model agrees with the adapter on 12.0% of 256 greedy tokens")
        if state in ("stopping", "cancelled"):
            await builds.request_cancel(made.id)
    await versions.set_alias("models/lora", "stable", 1, expected=0)


async def registry_answers(services: Services) -> dict[str, Any]:
    """Everything the registry tells about what it stores."""
    stub = services.registry
    models = await stub.ListModels(registry_pb2.ListModelsRequest(include_training_jobs=True))
    datasets = await stub.ListDatasets(registry_pb2.ListDatasetsRequest())
    parents = [item.name for item in (*models.models, *datasets.datasets)]
    lists = [await stub.ListVersions(registry_pb2.ListVersionsRequest(parent=parent)) for parent in parents]
    versions = [version for answer in lists for version in answer.versions]
    references = [version.engine_name for version in versions if version.name.startswith("models/")]
    references += [
        f"{name.partition('/')[2]}@sha256:{v.digest}" for v in versions if (name := _parent(v.name)) in parents
    ]
    references = [r for r in references if not r.startswith("ordinary")] + ["seed", "lora@stable", "datasets/ordinary"]
    resolved = {r: await stub.ResolveVersion(registry_pb2.ResolveVersionRequest(reference=r)) for r in references}
    builds = await stub.ListBuilds(registry_pb2.ListBuildsRequest(page_size=1000))
    newest = versions and await first(stub.WatchModels(registry_pb2.WatchModelsRequest(after_sequence=1)), 8)
    return {
        "models": [plain(m) for m in models.models],
        "datasets": [plain(d) for d in datasets.datasets],
        "versions": [plain(v) for v in versions],
        "resolved": {reference: version.name for reference, version in resolved.items()},
        "builds": [plain(b) for b in builds.builds],
        "events_after_1": [plain(event) for event in newest],
    }


async def trainer_answers(services: Services) -> dict[str, Any]:
    """Everything the trainer tells about what it stores."""
    stub = services.trainer
    jobs = (await stub.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest(page_size=1000))).training_jobs
    counts = {}
    with sqlite3.connect(Home.locate().path / "trainer.db") as database:
        counts = dict(database.execute("select job_id, count(*) from job_events group by job_id"))
    events, checkpoints = {}, {}
    for job in jobs:
        watch = stub.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=job.name))
        events[job.name] = [plain(event) for event in await first(watch, counts[job.name.partition("/")[2]])]
        answer = await stub.ListCheckpoints(trainer_pb2.ListCheckpointsRequest(parent=job.name))
        checkpoints[job.name] = [plain(checkpoint) for checkpoint in answer.checkpoints]
    return {"jobs": [plain(job) for job in jobs], "events": events, "checkpoints": checkpoints}


async def first(stream: AsyncIterator[Any], count: int) -> list[Any]:
    found = []
    async for message in stream:
        found.append(message)
        if len(found) == count:
            break
    return found


def plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _parent(version: str) -> str:
    return version.rpartition("/versions/")[0]


def keep(path: Path, name: str) -> None:
    target = OUT / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def save(name: str, value: Any) -> None:
    target = OUT / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).absolute()))
