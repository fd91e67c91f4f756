"""The clients a command uses, connected to the services of this home or of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tuneloom_cli.cluster import PREFIX, connection
from tuneloom_cli.local.home import Connection
from tuneloom_client.registry import RegistryClient
from tuneloom_client.trainer import TrainerClient

if TYPE_CHECKING:
    import aiohttp

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
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(registry_of(connection))
        trainer = await stack.enter_async_context(
            TrainerClient.at(
                connection.trainer,
                token=connection.service_token,
                tls=connection.trainer_tls,
                setting=PREFIX,
                address_setting=f"{PREFIX}TRAINER_ADDRESS" if connection.elsewhere else "",
            )
        )
        yield Services(connection, registry, trainer)


def registry_of(connection: Connection) -> RegistryClient:
    """A client of the registry alone."""
    return RegistryClient.at(
        connection.registry,
        token=connection.service_token,
        tls=connection.registry_tls,
        setting=PREFIX,
        address_setting=f"{PREFIX}REGISTRY_ADDRESS" if connection.elsewhere else "",
    )


def session(connection: Connection, url: str, *, token: str, **options: Any) -> aiohttp.ClientSession:
    """An HTTP session with a service of this connection."""
    import aiohttp

    tls = connection.registry_tls
    connector = aiohttp.TCPConnector(ssl=tls.context()) if tls and url.startswith("https://") else None
    return aiohttp.ClientSession(
        url or None, headers={"authorization": f"Bearer {token}"}, connector=connector, **options
    )


def run(use: Callable[[Services], Awaitable[T]]) -> T:
    """Runs one command's coroutine against the services it is meant for."""

    async def connected() -> T:
        async with connect(connection()) as services:
            return await use(services)

    return asyncio.run(connected())
