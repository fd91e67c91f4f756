"""A job store with a clock in the test's hand, and a whole trainer over a fake registry and a fake worker."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.databases.kinds import Databases
from tests.unit.trainer.fakes import Clock, FakeRegistry, serve_registry
from tuneloom_common.database import Database, open_database
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.app import TrainerApp, build
from tuneloom_trainer.jobs import Artifact, Job
from tuneloom_trainer.settings import TrainerSettings
from tuneloom_trainer.specs import load_recipes
from tuneloom_trainer.store import JobQueue, JobStore
from tuneloom_trainer.store.jobs import NewJob

LEASE_SECONDS = 10.0
CONFIG = b'{"model_type": "qwen2", "max_position_embeddings": 4096}'
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
CreateJob = Callable[..., Awaitable[Job]]
BuildApp = Callable[..., Awaitable[TrainerApp]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("database") / "trainer.db"

    async def migrate() -> None:
        engine = await open_database(f"sqlite+aiosqlite:///{path}", migrations="tuneloom_trainer.migrations")
        await engine.dispose()

    asyncio.run(migrate())
    return path


@pytest.fixture
def database_url(databases: Databases) -> str:
    return databases.migrated("trainer")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    engine = await open_database(database_url, migrations="tuneloom_trainer.migrations")
    yield engine
    await engine.dispose()


@pytest.fixture
def store(database: Database, clock: Clock) -> JobStore:
    return JobStore(database, clock=clock)


@pytest.fixture
def queue(database: Database, store: JobStore, clock: Clock) -> JobQueue:
    return JobQueue(
        database,
        lease=timedelta(seconds=LEASE_SECONDS),
        max_attempts=3,
        notifier=store.notifier,
        clock=clock,
    )


@pytest.fixture
def create(store: JobStore) -> CreateJob:
    """Creates a job; keywords change what it asks for."""

    async def create(**changes: Any) -> Job:
        wanted: dict[str, Any] = {
            "base_model": "seed",
            "base": Artifact("models/seed/versions/1", "a" * 64),
            "dataset": Artifact("datasets/chats/versions/1", "b" * 64),
            "output_model": "models/assistant",
            "recipe": "qlora",
            "spec": load_recipes()["qlora"].spec,
            "merge": False,
        }
        return await store.create(NewJob(**{**wanted, **changes}))

    return create


@pytest.fixture
async def registry(tmp_path: Path) -> FakeRegistry:
    """A registry that knows the base "seed", its merged "coach", the dataset "datasets/chats" and an adapter."""
    registry = FakeRegistry(await ObjectStore(f"file://{tmp_path}/objects").create(), tmp_path / "staging")
    await registry.publish("seed", "base", {"config.json": CONFIG})
    await registry.publish("coach", "merged", {"config.json": CONFIG + b" "})
    await registry.publish("alien", "base", {"config.json": b'{"model_type": "quux"}'})
    await registry.publish("adapter", "adapter", {"adapter_config.json": b"{}"})
    await registry.publish("datasets/chats", "dataset", {"chats.jsonl": b"{}"})
    await registry.publish("datasets/split", "dataset", {"a.jsonl": b"{}", "b.jsonl": b"{}"})
    return registry


@pytest.fixture
async def build_app(tmp_path: Path, migrated: Path, registry: FakeRegistry) -> AsyncIterator[BuildApp]:
    """The real composition root on loopback, with the fake worker. Keywords are settings."""
    shutil.copy(migrated, tmp_path / "app.db")
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_registry(registry))

        async def start(**changes: Any) -> TrainerApp:
            settings: dict[str, Any] = {
                "port": 0,
                "database_url": f"sqlite+aiosqlite:///{tmp_path}/app.db",
                "objects_url": f"file://{tmp_path}/objects",
                "registry_address": address,
                "work_dir": tmp_path / "work",
                "blob_cache_dir": tmp_path / "cache",
                "worker_command": (sys.executable, "-S", str(FAKE_WORKER)),
                "lease_seconds": 1.0,
            }
            app = await build(TrainerSettings(**{**settings, **changes}), stack)
            await app.server.start()
            stack.push_async_callback(app.server.stop, 0)
            return app

        yield start


@pytest.fixture
async def app(build_app: BuildApp) -> TrainerApp:
    return await build_app()
