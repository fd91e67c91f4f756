"""The clients a command uses, connected to the services of this home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from tuneloom_cli.local.home import Connection, Home
from tuneloom_client.registry import RegistryClient
from tuneloom_client.trainer import TrainerClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """Open clients. Their calls raise our own errors."""

    connection: Connection
    registry: RegistryClient
    trainer: TrainerClient


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Services]:
    """Clients of the services of a connection; nothing is sent before the first call."""
    token = connection.service_token
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(RegistryClient.at(connection.registry, token=token))
        trainer = await stack.enter_async_context(TrainerClient.at(connection.trainer, token=token))
        yield Services(connection, registry, trainer)


def run(use: Callable[[Services], Awaitable[T]]) -> T:
    """Runs one command's coroutine against the services of this home."""

    async def session() -> T:
        async with connect(Home.locate().connection()) as services:
            return await use(services)

    return asyncio.run(session())
