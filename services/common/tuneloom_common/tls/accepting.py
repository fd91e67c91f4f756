"""Accepting with TLS: a connection is somebody's from its first moment, not only once its handshake is over.

An event loop's own server tells of a connection after its handshake. Nobody could count it until then, and strangers
who say nothing would take every descriptor.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

import structlog

from tuneloom_common.tls.servers import HANDSHAKE_SECONDS

SHUTDOWN_SECONDS = 5.0
PAUSE_SECONDS = 1.0
log = structlog.get_logger()


class Accepted:
    """A connection from its accept to its end. `on_shaken` is called once its handshake is over, or failed."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.address = address
        self.on_shaken: Callable[[], None] = lambda: None
        self._socket = connection
        self._ended = False
        self._handshake: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Until its descriptor is closed, or is about to be because of `end`."""
        return not self._ended and self._socket.fileno() >= 0

    def end(self) -> None:
        """Closes it without a word, during its handshake or later."""
        self._ended = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._handshake is None:
            self._socket.close()
        else:
            self._handshake.cancel()

    def shake(self, context: ssl.SSLContext, protocol: asyncio.Protocol) -> None:
        """The protocol has the connection once its handshake is over."""
        self._handshake = asyncio.create_task(self._shake(context, protocol))
        self._handshake.add_done_callback(self._shaken)

    async def _shake(self, context: ssl.SSLContext, protocol: asyncio.Protocol) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol,
            self._socket,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )

    def _shaken(self, handshake: asyncio.Task[None]) -> None:
        failure = None if handshake.cancelled() else handshake.exception()
        if self._ended or failure is not None:
            self._socket.close()  # a handshake that never began has not closed it
        self.on_shaken()
        if not isinstance(failure, OSError | None):
            log.error("a connection failed unexpectedly", exc_info=failure)


class TlsListener:
    """Asks `admit` for each connection's protocol before its handshake; None: it is closed. At most `burst` are taken
    at a time, so that those which had to make room are gone before the next come."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        admit: Callable[[Accepted], asyncio.Protocol | None],
        *,
        burst: int,
    ) -> None:
        self._listener = listener
        self._context = context
        self._admit = admit
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Connections that exist go on."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """As servers of event loops have it; nothing is left to wait for."""

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(self._burst):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
                log.warning(f"no connection can be accepted ({error.strerror or error}); the next try is in a second")
                return
            connection.setblocking(False)
            accepted = Accepted(connection, address[0])
            if (protocol := self._admit(accepted)) is None:
                accepted.end()
            else:
                accepted.shake(self._context, protocol)
