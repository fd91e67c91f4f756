"""An engine's answer on its way to the client: bytes as they come, errors in OpenAI's shape."""

from __future__ import annotations

import aiohttp
import structlog
from starlette.types import Send

from tuneloom_common.errors import Unavailable
from tuneloom_common.tracebacks import describe
from tuneloom_gateway.errors import encode
from tuneloom_gateway.inference.engine_errors import shape
from tuneloom_gateway.inference.naming import PublicName
from tuneloom_gateway.metrics import USAGE_TAIL_BYTES, Metrics
from tuneloom_gateway.routing.served import ServedVersion

EVENT_STREAM = "text/event-stream"
_ERROR_EVENT = b'data: {"error":'
_GATEWAY_AT_FAULT = {
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects; set the engine's final URL at the gateway"),
    **dict.fromkeys((401, 403), "refused the gateway; set TUNELOOM_GATEWAY_ENGINE_API_KEY to its key"),
}
_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
log = structlog.get_logger()


class Relay:
    """One answer. `asked_for` is the model's name in the client's words, and so what the answer calls it."""

    def __init__(self, send: Send, served: ServedVersion, *, asked_for: str, metrics: Metrics) -> None:
        self._send = send
        self._served = served
        self._asked_for = asked_for
        self._metrics = metrics

    async def run(self, response: aiohttp.ClientResponse) -> None:
        """Sends on what the engine says."""
        if response.status >= 300:
            await self._error(response)
        elif response.content_length is not None:
            await self._whole(response)
        elif response.content_type == EVENT_STREAM:
            await self._start(response, _STREAM_HEADERS)
            await self._events(response)
        else:
            await self._start(response, [])
            await self._pieces(response)
            await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, response: aiohttp.ClientResponse, headers: list[tuple[bytes, bytes]]) -> None:
        content_type = response.headers.get("Content-Type", "application/json").encode("latin-1")
        if encoding := response.headers.get("Content-Encoding"):  # was asked not to, did it all the same
            headers = [*headers, (b"content-encoding", encoding.encode("latin-1"))]
        fields = [(b"content-type", content_type), *headers]
        await self._send({"type": "http.response.start", "status": response.status, "headers": fields})

    async def _whole(self, response: aiohttp.ClientResponse) -> None:
        said = await response.read()
        body = said if "Content-Encoding" in response.headers else self._name().whole(said)
        await self._start(response, [(b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})
        self._metrics.count_tokens(self._served.model, said)

    async def _pieces(self, response: aiohttp.ClientResponse) -> None:
        """Every chunk at once. The last bytes may hold the usage."""
        send, name = self._send, None if "Content-Encoding" in response.headers else self._name()
        tail = b""
        try:
            async for chunk in response.content.iter_any():
                tail = (tail + chunk)[-USAGE_TAIL_BYTES:]
                if name is not None:
                    chunk = name.piece(chunk)
                    if _ERROR_EVENT in chunk:
                        chunk = _shaped_events(chunk, self._hidden, self._asked_for)
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if name is not None and (rest := name.rest()):
                await send({"type": "http.response.body", "body": rest, "more_body": True})
        self._metrics.count_tokens(self._served.model, tail)

    async def _events(self, response: aiohttp.ClientResponse) -> None:
        last = b""
        try:
            await self._pieces(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            # The status line is long gone; OpenAI clients raise an error for an event like this one.
            log.warning("engine broke off a stream", engine=self._served.engine, error=describe(error))
            self._metrics.upstream_errors.labels("broken").inc()
            text = (
                f"the engine for {self._served.model} broke off its answer; what came so far is incomplete, try again"
            )
            last = b"\n\ndata: " + encode(text, kind="server_error", code="engine_broke_off") + b"\n\n"
        await self._send({"type": "http.response.body", "body": last})

    async def _error(self, response: aiohttp.ClientResponse) -> None:
        status, body = response.status, await response.read()
        model, engine = self._served.model, self._served.engine
        if status >= 500:
            self._metrics.upstream_errors.labels("status").inc()
        if status >= 500 or status in _GATEWAY_AT_FAULT:
            log.warning("engine error", engine=engine, status=status, bytes=len(body))
        if status in _GATEWAY_AT_FAULT:
            raise Unavailable(f"the engine for {model} {_GATEWAY_AT_FAULT[status]}", reason="ENGINE_MISCONFIGURED")
        retry_after = response.headers.get("Retry-After", "")
        shaped = shape(status, body, hidden=self._hidden, shown=self._asked_for, retry_after=retry_after)
        await self._send({"type": "http.response.start", "status": shaped.status, "headers": list(shaped.headers)})
        await self._send({"type": "http.response.body", "body": shaped.body})

    @property
    def _hidden(self) -> tuple[str, str]:
        return self._served.engine_model, self._served.engine

    def _name(self) -> PublicName:
        return PublicName(self._served.engine_model, self._asked_for)


def _shaped_events(chunk: bytes, hidden: tuple[str, ...], shown: str) -> bytes:
    """The same events; errors among them in OpenAI's shape."""
    *events, rest = chunk.split(b"\n\n")
    told = [
        b"data: " + shape(500, event[len(b"data: ") :], hidden=hidden, shown=shown).body
        if event.startswith(_ERROR_EVENT)
        else event
        for event in events
    ]
    return b"\n\n".join((*told, rest))
