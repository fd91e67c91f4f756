"""Servers: built, bound, run until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.grpc.edge import Edge
from tuneloom_common.grpc.options import OPTIONS
from tuneloom_common.principals import Principals
from tuneloom_common.tls import ServerTls

SHUTDOWN_GRACE_SECONDS = 3
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


async def build_server(
    *,
    domain: str,
    services: Sequence[tuple[str, Callable[[grpc.aio.Server], None]]],
    principals: Principals | None = None,
    scopes: Mapping[str, str] | None = None,
) -> grpc.aio.Server:
    """A server with health and reflection. `services` pairs a full service name with its registration.

    `scopes` names for every method of these services what a caller must be allowed to do; a method that is missing
    there needs `admin`. Without principals everybody may do everything.
    """
    names = [name for name, _ in services]
    server = grpc.aio.server(
        interceptors=[Edge(domain, principals or Principals(), _by_path(names, scopes or {}))], options=OPTIONS
    )
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    for _, register in services:
        register(server)
    _enable_reflection(server, (*names, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1))
    for name in ("", *names):
        await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server


def stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, from now on; ask for it before the start so that no signal is lost."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_until(stop: asyncio.Event, server: grpc.aio.Server, work: Coroutine[Any, Any, None]) -> None:
    """Runs a started server's background work until the event, then cancels it and closes the server.

    Work that ends by itself has failed: its error is raised.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await server.stop(SHUTDOWN_GRACE_SECONDS)


def bind(server: grpc.aio.Server, address: str, *, setting: str, tls: ServerTls | None = None) -> int:
    """Binds the address and returns the port; a taken port is named together with the setting to change."""
    credentials = tls.credentials() if tls else None
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise FailedPrecondition(
            f"{address} is in use or cannot be bound; stop what listens there or set {setting}",
            reason="PORT_IN_USE",
        )
    return port


def _by_path(services: Sequence[str], scopes: Mapping[str, str]) -> dict[str, str]:
    pool = descriptor_pool.Default()
    found = {}
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            found[f"/{service}/{method.name}"] = scopes.get(method.name, "admin")
    return found


def _enable_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    reflection.enable_server_reflection(names, server)
    # v1 has the messages of v1alpha under another package name; the library only speaks the older one.
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )
