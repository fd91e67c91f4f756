"""The process: a bound socket, uvicorn with uvloop and httptools, and an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from tuneloom_common.addresses import join
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.tls import TlsListener
from tuneloom_gateway.app import build
from tuneloom_gateway.edge.arrivals import Entrance
from tuneloom_gateway.edge.connections import Connections
from tuneloom_gateway.edge.descriptors import Descriptors
from tuneloom_gateway.edge.refusals import ProtocolLimits
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.settings import Settings

SWEEP_SECONDS = 1.0
log = structlog.get_logger()


def listen(settings: Settings, descriptors: Descriptors) -> socket.socket:
    """Binds the address, so that a taken port is known before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=descriptors.backlog)
    except OSError as error:
        raise FailedPrecondition(
            f"{settings.host}:{settings.port} is in use or cannot be bound ({error.strerror or error}); "
            "stop what listens there or set TUNELOOM_GATEWAY_PORT (and TUNELOOM_GATEWAY_HOST)",
            reason="PORT_IN_USE",
        ) from None
    listener.setblocking(False)
    return listener


async def serve(settings: Settings, listener: socket.socket, descriptors: Descriptors) -> None:
    """Runs until SIGTERM or SIGINT, then lets running requests finish for `drain_seconds`."""
    metrics = Metrics()
    scheme = "https" if settings.tls else "http"
    shown = join(*listener.getsockname()[:2])
    async with limited(settings, descriptors, metrics) as entrance:
        config = server_config(build(settings, metrics=metrics), settings, entrance, descriptors)
        log.info(f"gateway listens on {scheme}://{shown}", keys=len(settings.callers))
        await Server(config).serve(sockets=[listener])


@asynccontextmanager
async def limited(settings: Settings, descriptors: Descriptors, metrics: Metrics) -> AsyncIterator[Entrance]:
    """By which all connections come in, within the same limits; deadlines are kept meanwhile."""
    at_most = settings.max_connections or descriptors.connections
    per_client = settings.max_connections_per_client or max(1, at_most // 2)
    loop = asyncio.get_running_loop()
    connections = Connections(at_most=at_most, per_client=per_client, clock=loop.time)
    limits = ProtocolLimits(
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        max_request_line_bytes=settings.max_request_line_bytes,
        header_seconds=settings.header_timeout_seconds,
        body_seconds=settings.body_timeout_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        write_seconds=settings.write_timeout_seconds,
    )
    sweeping = asyncio.create_task(
        _sweep(connections, every=min(SWEEP_SECONDS, limits.header_seconds / 4, limits.body_seconds / 4))
    )
    yield Entrance(limits, connections, lambda code: metrics.refused.labels(code).inc())
    sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await sweeping


class Server(uvicorn.Server):
    """uvicorn's, with connections of TLS counted from their accept on."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        config, loop = self.config, asyncio.get_running_loop()
        entrance: Entrance = config.http_protocol_class  # type: ignore[assignment] # see `server_config`
        options = {"config": config, "server_state": self.server_state, "app_state": self.lifespan.state}
        for listener in sockets or ():
            if config.ssl is None:
                make = partial(entrance, **options)
                self.servers.append(await loop.create_server(make, sock=listener, backlog=config.backlog))
            else:
                admit = partial(entrance.admit, **options)
                accepting = TlsListener(listener, config.ssl, admit, burst=config.backlog)
                self.servers.append(accepting)  # type: ignore[arg-type] # it is only closed


def server_config(app: FastAPI, settings: Settings, entrance: Entrance, descriptors: Descriptors) -> uvicorn.Config:
    """uvicorn with our protocol, and silent: what it would log of requests is no one's business."""
    tls = settings.tls.context() if settings.tls else None
    return uvicorn.Config(
        app,
        http=entrance,  # type: ignore[arg-type] # it is only called
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=descriptors.backlog,
        timeout_graceful_shutdown=settings.drain_seconds,
        ssl_context_factory=(lambda config, default: tls) if tls else None,
    )


async def _sweep(connections: Connections, *, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        connections.sweep()
