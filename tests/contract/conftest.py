"""What earlier releases wrote, and today's services opened on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.databases.kinds import Databases
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
from tuneloom_common.grpc import open_channel
from tuneloom_registry import app as registry_app
from tuneloom_registry.settings import RegistrySettings
from tuneloom_trainer import app as trainer_app
from tuneloom_trainer.settings import TrainerSettings

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())
EACH_RELEASE = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
TOKEN = "a-token-of-this-test"


def answers(release: Path, name: str) -> Any:
    """What the release itself answered about its database."""
    return json.loads((release / "answers" / f"{name}.json").read_bytes())


def keeps(now: Any, then: Any, path: str = "") -> list[str]:
    """Where today's answer lacks or changes something that was there; what is new is no difference."""
    if isinstance(then, dict):
        if not isinstance(now, dict):
            return [f"{path}: {then!r} became {now!r}"]
        return [line for key, value in then.items() for line in keeps(now.get(key), value, f"{path}.{key}")]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [line for i, value in enumerate(then) for line in keeps(now[i], value, f"{path}[{i}]")]
    return [] if now == then else [f"{path}: {then!r} became {now!r}"]


async def end(server: grpc.aio.Server, services: set[asyncio.Task[Any]]) -> None:
    """Stops, and lets transactions of streams that were cut finish before their database is closed. What the service
    runs beside its calls ends later."""
    await server.stop(None)
    others = asyncio.all_tasks() - services - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=10)


@pytest.fixture
async def registry(release: Path, databases: Databases, tmp_path: Path) -> AsyncIterator[RegistryServiceStub]:
    """Today's registry on the release's database; no build is run."""
    settings = RegistrySettings(
        port=0,
        token=TOKEN,  # type: ignore[arg-type]
        database_url=databases.restored(release / "registry.sql", "registry"),
        objects_url=f"file://{tmp_path}/objects",
        work_dir=tmp_path / "registry",
    )
    async with AsyncExitStack() as stack:
        app = await registry_app.build(settings, stack)
        await app.server.start()
        stack.push_async_callback(end, app.server, asyncio.all_tasks())
        channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{app.port}", token=TOKEN))
        yield RegistryServiceStub(channel)


@pytest.fixture
async def trainer(release: Path, databases: Databases, tmp_path: Path) -> AsyncIterator[TrainerServiceStub]:
    """Today's trainer on the release's database; no job is run."""
    settings = TrainerSettings(
        port=0,
        token=TOKEN,  # type: ignore[arg-type]
        database_url=databases.restored(release / "trainer.sql", "trainer"),
        objects_url=f"file://{tmp_path}/objects",
        registry_address="127.0.0.1:9",
        work_dir=tmp_path / "trainer",
    )
    async with AsyncExitStack() as stack:
        app = await trainer_app.build(settings, stack)
        await app.server.start()
        stack.push_async_callback(end, app.server, asyncio.all_tasks())
        channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{app.port}", token=TOKEN))
        yield TrainerServiceStub(channel)
