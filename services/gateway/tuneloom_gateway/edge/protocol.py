"""HTTP/1.1 on one connection, within limits: uvicorn's protocol on httptools has none of its own.

Bytes and time are counted before and while the parser sees them, so that a client without a key can make the
gateway neither hold much nor wait long. Keys are checked before bodies are read; bodies have their own limits there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tuneloom_gateway.edge.connections import Connections
from tuneloom_gateway.edge.context import CONNECTION
from tuneloom_gateway.edge.refusals import ProtocolLimits, Refusal

# After an answer that came before the end of the request the rest is read for a while, or the client might lose
# the answer to a reset.
LINGER_SECONDS = 5.0
LINGER_BYTES = 16 << 20
MOST_PIPELINED = 16
# A body in chunks may be this much larger on the wire than its content.
MOST_FRAMING_BYTES = 64 << 10
MOST_FRAMING_PER_BYTE = 8


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with its open ends tied. Deadlines are kept by `Connections.sweep`, not by timers."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ProtocolLimits,
        connections: Connections,
        count_refusal: Callable[[str], None],
        arrived: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.lost = False
        self.on_lost: Callable[[], None] | None = None
        self.deadline = math.inf
        self._limits = limits
        self._max_header_bytes = limits.max_header_bytes
        self._all = connections
        self._count_refusal = count_refusal
        self._arrived = arrived
        self._admitted = False
        self._refusal: Refusal | None = None
        self._refused = False
        self._head = True  # before or in the head of a request
        self._receiving = False  # a body, for which a deadline was set
        self._heads = 0
        self._head_fed = 0
        self._fields_bytes = 0
        self._body_fed = 0
        self._body_bytes = 0
        self._write_timer: asyncio.TimerHandle | None = None

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._arrived is not None:
            self._arrived()
        self.address = self.client[0] if self.client else ""
        self.deadline = self.loop.time() + self._limits.header_seconds
        self._admitted = self._all.admit(self)
        if not self._admitted:
            message = "the gateway has as many connections as it may have; try again shortly"
            self._refuse(Refusal(503, message, "too_many_connections"), linger=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.on_lost is not None:
            self.on_lost()
        self._leave()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def evict(self) -> None:
        self._count_refusal("evicted")
        self._leave()
        self.transport.abort()

    def expire(self) -> None:
        if self._head and self._head_fed and not self._refused:
            text = f"the request's headers did not arrive within {self._limits.header_seconds:g} s; send them at once"
            self._refuse(Refusal(408, text, "header_timeout"))
        elif self._receiving and not self._refused:
            text = (
                f"the request body did not arrive within {self._limits.body_seconds:g} s; send it at once, or raise "
                "TUNELOOM_GATEWAY_BODY_TIMEOUT_SECONDS at the gateway"
            )
            self._refuse(Refusal(408, text, "body_timeout"))
        else:
            self._leave()
            self.transport.abort()

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._all.leave(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # Bytes in

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        was_in_head, heads = self._head, self._heads
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as an ordinary request
        except httptools.HttpParserError:
            self._refusal = self._refusal or Refusal(400, "this is not HTTP/1.1; is it meant for https?", "bad_http")
        if self._refusal is None and self._head:
            self._count_head(len(data) if was_in_head and heads == self._heads else 0)
        elif self._refusal is None:
            self._count_body(0 if was_in_head else len(data))
        if self._refusal is not None:
            self._refuse(self._refusal)

    def _count_head(self, fed: int) -> None:
        if not self._head_fed and fed:
            self.deadline = self.loop.time() + self._limits.header_seconds
        self._head_fed += fed
        if self._head_fed > self._limits.max_header_bytes:
            self._too_large()

    def _count_body(self, fed: int) -> None:
        self._body_fed += fed
        if self._body_fed - self._body_bytes > MOST_FRAMING_BYTES + MOST_FRAMING_PER_BYTE * self._body_bytes:
            self._refusal = Refusal(400, "the body's chunks are mostly framing; send larger chunks", "bad_chunks")
        elif self.cycle.response_complete and self._body_fed > LINGER_BYTES:
            self.transport.abort()
        elif not self._receiving and self.cycle.more_body and not self.cycle.response_complete:
            self._receiving = True
            self.deadline = self.loop.time() + self._limits.body_seconds
            self._all.receive(self)

    def _too_large(self) -> None:
        text = f"the request's headers have more than {self._limits.max_header_bytes:,} bytes; send less"
        self._refusal = self._refusal or Refusal(431, text, "headers_too_large")

    # What the parser tells

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._head_fed, self._fields_bytes, self._body_fed, self._body_bytes = True, 0, 0, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._limits.max_request_line_bytes:
            text = f"the request line has more than {self._limits.max_request_line_bytes:,} bytes; use the body"
            self._refusal = self._refusal or Refusal(414, text, "request_line_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """uvicorn's, counted. Trailers are counted and left out."""
        self._fields_bytes += len(name) + len(value) + 4
        if self._fields_bytes > self._max_header_bytes:
            self._too_large()
        elif self._head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head = False
        self._heads += 1
        if len(self.headers) > self._limits.max_headers:
            text = f"the request has more than {self._limits.max_headers} headers; send fewer"
            self._refusal = self._refusal or Refusal(431, text, "too_many_headers")
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refusal = Refusal(400, "too many requests at once on one connection", "too_much_pipelining")
        if self._refusal is None and self._admitted:
            self._all.work(self)
            self.deadline = math.inf
            self.scope[CONNECTION] = self  # type: ignore[literal-required]
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._head, self._head_fed = True, 0
        if self._refusal is None:
            super().on_message_complete()
            if self._receiving:
                self._receiving = False
                self._all.work(self)
            if self.cycle.response_complete and not self.pipeline:
                self.deadline = self.loop.time() + self._limits.keep_alive_seconds

    # Answers

    def on_response_complete(self) -> None:
        """As in uvicorn, without a timer per request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._wait_for_close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._admitted:
            self._receiving = False
            seconds = LINGER_SECONDS if self.cycle.more_body else self._limits.keep_alive_seconds
            self.deadline = self.loop.time() + seconds
            self._all.wait(self)

    def _wait_for_close(self) -> None:
        """Over TLS the client has its part in closing, and meanwhile may be closed to make room."""
        if self._admitted:
            self._receiving = False
            self.deadline = self.loop.time() + LINGER_SECONDS
            self._all.wait(self)

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refusal(400, msg, "bad_http"))

    def _refuse(self, refusal: Refusal, *, linger: bool = True) -> None:
        """Answers without asking the application, and reads no more of this connection."""
        self._refused = True
        self._count_refusal(refusal.code)
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.transport.abort()
        elif self.cycle is None or self.cycle.response_complete or self._give_up_request():
            self._speak(refusal, linger=linger)
        else:
            self.cycle.keep_alive = False  # the request before this one is still being answered

    def _give_up_request(self) -> bool:
        """Whether the fault is in a request that the application has not begun to answer; it hears of a disconnect."""
        if self.cycle.response_started or not self.cycle.more_body:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _speak(self, refusal: Refusal, *, linger: bool) -> None:
        self.transport.write(refusal.spoken)
        if linger and self._admitted:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            self.deadline = self.loop.time() + min(LINGER_SECONDS, self._limits.header_seconds)
            self._all.wait(self)
        else:
            self._leave()
            self.transport.close()
