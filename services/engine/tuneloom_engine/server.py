"""The listening socket, with bounds for what strangers can hold: header bytes and time, idle time, connections.

When all connections are taken, the one leaves that has been open for longest without a request: whoever has something
to ask comes through, however many connections say nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.grpc import stop_signals
from tuneloom_common.tls import Accepted, ServerTls, TlsListener
from tuneloom_engine.app import build
from tuneloom_engine.edge import DOOR
from tuneloom_engine.settings import HostSettings

HEADER_SECONDS = 10.0
HEADER_LINE_BYTES = 4096
HEADERS = 64
CONNECTION_GRACE_SECONDS = 1
BURST = 16
# aiohttp tells about malformed requests with a traceback that quotes them; what fails inside is told by `edge`.
_NO_LOG = logging.Logger("tuneloom.engine.protocol", level=logging.CRITICAL + 1)
log = structlog.get_logger()


def listen(settings: HostSettings) -> socket.socket:
    """Binds the address, so that a taken port is known before anything is started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise FailedPrecondition(
            f"{settings.host}:{settings.port} is in use or cannot be bound ({error.strerror or error}); "
            "stop what listens there or set TUNELOOM_ENGINE_PORT",
            reason="PORT_IN_USE",
        ) from None
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serving(
    app: web.Application,
    listener: socket.socket,
    *,
    max_connections: int,
    header_seconds: float = HEADER_SECONDS,
    tls: ServerTls | None = None,
) -> AsyncIterator[None]:
    """Answers on the listener until the end of the block; running requests then have a moment to finish."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_NO_LOG,
        keepalive_timeout=header_seconds,  # counts from the connection's start, and slow bytes do not extend it
        lingering_time=0,
        max_line_size=HEADER_LINE_BYTES,
        max_field_size=HEADER_LINE_BYTES,
        max_headers=HEADERS,
        shutdown_timeout=CONNECTION_GRACE_SECONDS,
    )
    await runner.setup()
    listening: asyncio.Server | TlsListener
    if tls is None:
        make = _accepting(app, runner, max_connections)
        listening = await asyncio.get_running_loop().create_server(make, sock=listener)
    else:
        listening = TlsListener(listener, tls.context(), _Arrivals(app, runner, max_connections).admit, burst=BURST)
    try:
        yield
    finally:
        listening.close()
        await runner.cleanup()


async def run(settings: HostSettings, listener: socket.socket) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = stop_signals()
    async with serving(build(settings), listener, max_connections=settings.max_connections, tls=settings.tls):
        shown = settings.shown(listener.getsockname()[1])
        log.info(f"engine host listens on {shown}", max_replicas=settings.max_replicas)
        await stop.wait()


def _accepting(app: web.Application, runner: web.AppRunner, max_connections: int) -> Callable[[], asyncio.Protocol]:
    def accept() -> asyncio.Protocol:
        server = runner.server
        if server is None:
            return _Refusal()
        open_ = [one for one in server.connections if one.transport and not one.transport.is_closing()]
        if len(open_) >= max_connections:
            silent = next((connection for connection in open_ if not app[DOOR].is_asking(connection)), None)
            if silent is None:
                return _Refusal()
            silent.force_close()
        return server()

    return accept


class _Arrivals:
    """The same with TLS: connections count from their accept until they are closed, handshakes included."""

    def __init__(self, app: web.Application, runner: web.AppRunner, max_connections: int) -> None:
        self._app = app
        self._runner = runner
        self._at_most = max_connections
        self._open: dict[Accepted, RequestHandler] = {}

    def admit(self, accepted: Accepted) -> asyncio.Protocol | None:
        self._open = {one: protocol for one, protocol in self._open.items() if one.is_open}
        if self._runner.server is None or (len(self._open) >= self._at_most and not self._make_room()):
            return None
        self._open[accepted] = protocol = self._runner.server()
        return protocol

    def _make_room(self) -> bool:
        door = self._app[DOOR]
        silent = next((one for one, protocol in self._open.items() if not door.is_asking(protocol)), None)
        if silent is not None:
            silent.end()
        return silent is not None


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
