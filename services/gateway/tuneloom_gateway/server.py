"""The process: a bound socket, uvicorn with uvloop and httptools, and an orderly end."""

from __future__ import annotations

import socket

import structlog
import uvicorn

from tuneloom_common.errors import FailedPrecondition
from tuneloom_gateway.app import build
from tuneloom_gateway.settings import Settings

BACKLOG = 2048
# Longer than the idle time of common clients and load balancers, so that they close first.
KEEP_ALIVE_SECONDS = 75
log = structlog.get_logger()


def listen(settings: Settings) -> socket.socket:
    """Binds the address, so that a taken port is known before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise FailedPrecondition(
            f"{settings.host}:{settings.port} is in use or cannot be bound ({error.strerror or error}); "
            "stop what listens there or set TUNELOOM_GATEWAY_PORT (and TUNELOOM_GATEWAY_HOST)",
            reason="PORT_IN_USE",
        ) from None
    listener.setblocking(False)
    return listener


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Runs until SIGTERM or SIGINT, then lets running requests finish for `drain_seconds`."""
    config = uvicorn.Config(
        build(settings),
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info(f"gateway listens on http://{shown}:{port}", keys=len(settings.api_key_sha256s))
    await uvicorn.Server(config).serve(sockets=[listener])
