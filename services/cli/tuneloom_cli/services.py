"""Typed access to the registry and the trainer from commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuneloom_cli.home import Connection, Home

if TYPE_CHECKING:
    from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub
    from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceAsyncStub

TIMEOUT_SECONDS = 30
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """Open stubs. Calls raise TuneloomError inside `run`."""

    connection: Connection
    registry: RegistryServiceAsyncStub
    trainer: TrainerServiceAsyncStub


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Services]:
    """Opens channels to the services of a connection."""
    from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
    from tuneloom_common.grpc import open_channel

    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_channel(connection.registry, token=connection.service_token))
        trainer = await stack.enter_async_context(open_channel(connection.trainer, token=connection.service_token))
        yield Services(
            connection,
            RegistryServiceStub(registry),
            TrainerServiceStub(trainer),
        )


def run(use: Callable[[Services], Awaitable[T]]) -> T:
    """Runs one command's coroutine against the services of this home."""
    import grpc

    from tuneloom_common.grpc import from_rpc_error

    async def session() -> T:
        async with connect(Home.locate().connection()) as services:
            try:
                return await use(services)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, "service") from None

    return asyncio.run(session())
