"""A real registry, and a service whose answers are scripted, each on a loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from tuneloom.registry.v1 import registry_pb2_grpc
from tuneloom.trainer.v1 import trainer_pb2_grpc
from tuneloom_client.registry import RegistryClient
from tuneloom_client.trainer import TrainerClient
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.principals import Principals
from tuneloom_registry.app import build
from tuneloom_registry.settings import RegistrySettings

ServeScripted = Callable[..., Awaitable[str]]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def _stopped(server: grpc.aio.Server, earlier: set[asyncio.Task[Any]]) -> None:
    """Stops a server and waits for its cancelled handlers, which may be in the middle of a transaction."""
    await server.stop(0)
    if handlers := asyncio.all_tasks() - earlier - {asyncio.current_task()}:
        await asyncio.wait(handlers, timeout=5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryClient]:
    """A client of a registry over SQLite and a directory."""
    async with AsyncExitStack() as stack:
        settings = RegistrySettings(
            port=0,
            database_url=f"sqlite+aiosqlite:///{tmp_path}/registry.db",
            objects_url=f"file://{tmp_path}/objects",
            work_dir=tmp_path / "work",
        )
        earlier = asyncio.all_tasks()
        app = await build(settings, stack)
        await app.server.start()
        stack.push_async_callback(_stopped, app.server, earlier)
        yield await stack.enter_async_context(RegistryClient.at(f"127.0.0.1:{app.port}", token=None))


@pytest.fixture
async def serve() -> AsyncIterator[ServeScripted]:
    """Serves a scripted registry or trainer; `token` is what it asks for."""
    async with AsyncExitStack() as stack:

        async def start(service: Any, *, token: str = "") -> str:
            room = "registry" if isinstance(service, registry_pb2_grpc.RegistryServiceServicer) else "trainer"
            add = {
                "registry": registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                "trainer": trainer_pb2_grpc.add_TrainerServiceServicer_to_server,
            }[room]
            server = await build_server(
                domain=f"{room}.tuneloom",
                principals=Principals(admin_token=SecretStr(token) if token else None),
                services=[(f"tuneloom.{room}.v1.{room.capitalize()}Service", lambda server: add(service, server))],
            )
            port = bind(server, "127.0.0.1:0", setting="port")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return f"127.0.0.1:{port}"

        yield start


@pytest.fixture
async def registry_at() -> AsyncIterator[Callable[..., RegistryClient]]:
    async with AsyncExitStack() as stack:

        def connect(address: str, **more: Any) -> RegistryClient:
            client = RegistryClient.at(address, **{"token": None, **more})
            stack.push_async_callback(client.close)
            return client

        yield connect


@pytest.fixture
async def trainer_at() -> AsyncIterator[Callable[..., TrainerClient]]:
    async with AsyncExitStack() as stack:

        def connect(address: str, **more: Any) -> TrainerClient:
            client = TrainerClient.at(address, **{"token": None, **more})
            stack.push_async_callback(client.close)
            return client

        yield connect
