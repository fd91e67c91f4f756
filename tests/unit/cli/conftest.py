"""Commands as a user runs them, against a real registry and a scripted trainer on loopback ports.

Commands run their own event loop, so the services live in another thread.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydantic import SecretStr
from typer.testing import CliRunner

from tuneloom.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceServicer, add_TrainerServiceServicer_to_server
from tuneloom_cli.app import app
from tuneloom_cli.local.home import Home, Ports
from tuneloom_common.database import open_database
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Manifest, Proof, Template
from tuneloom_common.principals import Principals
from tuneloom_registry.app import RegistryApp, build
from tuneloom_registry.settings import RegistrySettings

GOOD_ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
TEMPLATE = Template(tokenizer_sha256="1" * 64, chat_template_sha256="2" * 64, stop_tokens=("</s>",))
PROOF = Proof(
    prompts=8,
    positions=99,
    greedy_agreement=1.0,
    max_logit_diff=0.002,
    mean_kl=1e-7,
    adapter_effect=3.0,
    dtype="float32",
)
Say = Callable[..., Result]


class Trainer(TrainerServiceServicer):
    """Jobs by name, the events each is watched with, its log; remembers what it was asked."""

    def __init__(self) -> None:
        self.jobs: dict[str, jobs_pb2.TrainingJob] = {}
        self.events: list[trainer_pb2.TrainingJobEvent] = []
        self.checkpoints: list[jobs_pb2.Checkpoint] = []
        self.logs: dict[str, str] = {}
        self.requests: list[Any] = []
        self.after_watching: Callable[[], None] = lambda: None

    def add(self, id_: str = "job-4k2m9x7q3a", **fields: Any) -> jobs_pb2.TrainingJob:
        job = jobs_pb2.TrainingJob(
            name=f"trainingJobs/{id_}",
            **{
                "base_model": "seed",
                "dataset": "datasets/faq/versions/1",
                "output_model": "models/helper",
                "recipe": "qlora",
                "state": jobs_pb2.JOB_STATE_QUEUED,
                "attempt": 1,
                **fields,
            },
        )
        job.create_time.FromJsonString("2026-11-21T10:00:00Z")
        job.update_time.FromJsonString("2026-11-21T10:05:00Z")
        self.jobs[job.name] = job
        return job

    def _job(self, name: str) -> jobs_pb2.TrainingJob:
        if name not in self.jobs:
            raise NotFound(f"{name} does not exist; 'tuneloom jobs list' shows the newest")
        return self.jobs[name]

    async def CreateTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        self.requests.append(request)
        job = jobs_pb2.TrainingJob()
        job.CopyFrom(request.training_job)
        if not request.validate_only:
            job.name = "trainingJobs/job-new"
            job.state = jobs_pb2.JOB_STATE_QUEUED
            self.jobs.setdefault(job.name, job)
        return job

    async def GetTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        return self._job(request.name)

    async def ListTrainingJobs(self, request: Any, context: Any) -> trainer_pb2.ListTrainingJobsResponse:
        return trainer_pb2.ListTrainingJobsResponse(training_jobs=list(self.jobs.values())[: request.page_size])

    async def CancelTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        return self._moved(request.name, jobs_pb2.JOB_STATE_CANCELLING)

    async def PauseTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        return self._moved(request.name, jobs_pb2.JOB_STATE_PAUSING)

    async def ResumeTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        return self._moved(request.name, jobs_pb2.JOB_STATE_QUEUED)

    def _moved(self, name: str, state: Any) -> jobs_pb2.TrainingJob:
        job = self._job(name)
        job.state = state
        return job

    async def WatchTrainingJob(self, request: Any, context: Any) -> AsyncIterator[trainer_pb2.TrainingJobEvent]:
        self._job(request.name)
        for sequence, event in enumerate(self.events, start=1):
            if sequence > request.after_sequence:
                event.sequence = sequence
                yield event
        self.after_watching()

    async def ListCheckpoints(self, request: Any, context: Any) -> trainer_pb2.ListCheckpointsResponse:
        self._job(request.parent)
        return trainer_pb2.ListCheckpointsResponse(checkpoints=self.checkpoints)

    async def ReadTrainingJobLog(self, request: Any, context: Any) -> trainer_pb2.ReadTrainingJobLogResponse:
        self.requests.append(request)
        self._job(request.name)
        return trainer_pb2.ReadTrainingJobLogResponse(text=self.logs.get(request.name, ""), truncated=False)

    async def ListRecipes(self, request: Any, context: Any) -> trainer_pb2.ListRecipesResponse:
        spec = jobs_pb2.TrainingSpec(tuning=jobs_pb2.TUNING_LORA, method=jobs_pb2.METHOD_LORA, max_steps=0, seed=42)
        spec.lora.r = 16
        return trainer_pb2.ListRecipesResponse(
            recipes=[trainer_pb2.Recipe(name="qlora", description="Small memory.", spec=spec)]
        )


@dataclass
class World:
    """A home whose services answer. `do` runs a coroutine in their thread."""

    home: Home
    trainer: Trainer
    registry: RegistryApp
    loop: asyncio.AbstractEventLoop
    directory: Path
    stack: AsyncExitStack

    def do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(timeout=30)

    def model(self, name: str, kind: Kind = Kind.BASE, *, base: Any = None, salt: str = "", aliases: Any = ()) -> Any:
        """Registers a version past the rules for outsiders, as a build would."""
        directory = self.directory / f"{name}-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        (directory / "config.json").write_text(f"{{}} {salt}")
        (directory / "model.safetensors").write_bytes(b"w")

        async def work() -> Any:
            manifest = Manifest(
                kind=kind,
                files=await self.registry.objects.put_directory(directory),
                base=BaseRef(model=base.name.id, digest=base.digest) if base else None,
                template=TEMPLATE,
                proof=PROOF if kind is Kind.MERGED else None,
            )
            try:
                await self.registry.versions.create_collection(f"models/{name}")
            except TuneloomError:
                pass
            return await self.registry.versions.create_version(f"models/{name}", manifest, set_aliases=aliases)

        return self.do(work)

    def play_registry(self, service: RegistryServiceServicer) -> None:
        """Lets this service answer as the registry from now on."""

        async def work() -> int:
            server = await build_server(
                domain="registry.tuneloom",
                principals=Principals(),
                services=[
                    (
                        "tuneloom.registry.v1.RegistryService",
                        lambda server: add_RegistryServiceServicer_to_server(service, server),
                    )
                ],
            )
            port = bind(server, "127.0.0.1:0", setting="port")
            await server.start()
            self.stack.push_async_callback(server.stop, 0)
            return port

        trainer = int(self.home.connection().trainer.rpartition(":")[2])
        self.home.prepare(Ports(registry=self.do(work), trainer=trainer))

    def dataset(self, name: str, rows: int = 2) -> Path:
        file = self.directory / f"{name}.jsonl"
        file.write_text("".join(json.dumps(GOOD_ROW | {"id": i}) + "\n" for i in range(rows)))
        return file


@pytest.fixture
def say() -> Say:
    """Runs one command. An error meant for the user is raised: `main` prints it."""

    def run(*arguments: str, input: str | None = None, fails: bool = False) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code != 0) == fails, result.output
        return result

    return run


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry database, to be copied."""
    path = tmp_path_factory.mktemp("database") / "registry.db"

    async def migrate() -> None:
        database = await open_database(f"sqlite+aiosqlite:///{path}", migrations="tuneloom_registry.migrations")
        await (database.close if hasattr(database, "close") else database.dispose)()

    asyncio.run(migrate())
    return path


@pytest.fixture
def world(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    home = Home(tmp_path / "home")
    monkeypatch.setenv("TUNELOOM_HOME", str(home.path))
    monkeypatch.setenv("COLUMNS", "60")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack, trainer = AsyncExitStack(), Trainer()
    directory = tmp_path / "files"
    directory.mkdir()
    shutil.copy(migrated, tmp_path / "registry.db")

    def do(work: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=30)  # type: ignore[arg-type]

    try:
        registry, ports = do(_start(stack, home, trainer, tmp_path))
        home.prepare(ports)
        yield World(home, trainer, registry, loop, directory, stack)
        do(stack.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(stack: AsyncExitStack, home: Home, trainer: Trainer, tmp_path: Path) -> tuple[RegistryApp, Ports]:
    token = SecretStr(home.prepare(Ports()).service_token)
    registry = await build(
        RegistrySettings(
            port=0,
            database_url=f"sqlite+aiosqlite:///{tmp_path}/registry.db",
            objects_url=f"file://{tmp_path}/objects",
            work_dir=tmp_path / "work",
            token=token,
        ),
        stack,
    )
    await registry.server.start()
    stack.push_async_callback(registry.server.stop, 0)
    server = await build_server(
        domain="trainer.tuneloom",
        principals=Principals(admin_token=token),
        services=[
            ("tuneloom.trainer.v1.TrainerService", lambda server: add_TrainerServiceServicer_to_server(trainer, server))
        ],
    )
    port = bind(server, "127.0.0.1:0", setting="port")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    return registry, Ports(registry=registry.port, trainer=port)
