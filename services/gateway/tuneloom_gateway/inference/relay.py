"""An engine's answer on its way to the client: bytes as they come, errors in OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import structlog
from starlette.types import Send

from tuneloom_common.errors import Unavailable
from tuneloom_common.tracebacks import describe
from tuneloom_gateway.errors import Answer, answer, encode, without_paths
from tuneloom_gateway.metrics import USAGE_TAIL_BYTES, Metrics
from tuneloom_gateway.routing.served import ServedVersion

EVENT_STREAM = "text/event-stream"
_FIELDS = ("type", "param", "code")
_GATEWAY_AT_FAULT = {
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects; set the engine's final URL at the gateway"),
    **dict.fromkeys((401, 403), "refused the gateway; set TUNELOOM_GATEWAY_ENGINE_API_KEY to its key"),
}
_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
log = structlog.get_logger()


async def relay(
    response: aiohttp.ClientResponse, send: Send, *, served: ServedVersion, asked_for: str, metrics: Metrics
) -> None:
    """Sends on what the engine says. `asked_for` is the model's name in the client's words."""
    if response.status >= 300:
        await _relay_error(response, send, served=served, asked_for=asked_for, metrics=metrics)
    elif response.content_length is not None:
        body = await response.read()
        await _start(send, response, [(b"content-length", b"%d" % len(body))])
        await send({"type": "http.response.body", "body": body})
        metrics.count_tokens(served.model, body)
    elif response.content_type == EVENT_STREAM:
        await _start(send, response, _STREAM_HEADERS)
        await _relay_events(response, send, served=served, metrics=metrics)
    else:
        await _start(send, response, [])
        metrics.count_tokens(served.model, await _relay_chunks(response, send))
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, response: aiohttp.ClientResponse, headers: list[tuple[bytes, bytes]]) -> None:
    content_type = response.headers.get("Content-Type", "application/json").encode("latin-1")
    if encoding := response.headers.get("Content-Encoding"):  # was asked not to, did it all the same
        headers = [*headers, (b"content-encoding", encoding.encode("latin-1"))]
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(b"content-type", content_type), *headers],
        }
    )


async def _relay_chunks(response: aiohttp.ClientResponse, send: Send) -> bytes:
    """Every chunk at once, as it is. Returns the last bytes, which may hold the usage."""
    tail = b""
    async for chunk in response.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        tail = (tail + chunk)[-USAGE_TAIL_BYTES:]
    return tail


async def _relay_events(
    response: aiohttp.ClientResponse, send: Send, *, served: ServedVersion, metrics: Metrics
) -> None:
    last = b""
    try:
        metrics.count_tokens(served.model, await _relay_chunks(response, send))
    except (aiohttp.ClientError, TimeoutError) as error:
        # The status line is long gone; OpenAI clients raise an error for an event like this one.
        log.warning("engine broke off a stream", replica=served.replica, error=describe(error))
        metrics.upstream_errors.labels("broken").inc()
        text = f"the engine for {served.model} broke off its answer; what came so far is incomplete, try again"
        last = b"\n\ndata: " + encode(text, kind="server_error", code="engine_broke_off") + b"\n\n"
    await send({"type": "http.response.body", "body": last})


async def _relay_error(
    response: aiohttp.ClientResponse, send: Send, *, served: ServedVersion, asked_for: str, metrics: Metrics
) -> None:
    status, body = response.status, await response.read()
    if status >= 500:
        metrics.upstream_errors.labels("status").inc()
    if status >= 500 or status in _GATEWAY_AT_FAULT:
        log.warning("engine error", replica=served.replica, status=status, bytes=len(body))
    if status in _GATEWAY_AT_FAULT:
        raise Unavailable(f"the engine for {served.model} {_GATEWAY_AT_FAULT[status]}", reason="ENGINE_MISCONFIGURED")
    shaped = _shaped(status, body, hidden=(served.engine_model, served.replica), shown=asked_for)
    headers = list(shaped.headers)
    retry_after = response.headers.get("Retry-After", "")
    if retry_after.isdigit():
        headers = [pair for pair in headers if pair[0] != b"retry-after"]
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": shaped.status, "headers": headers})
    await send({"type": "http.response.body", "body": shaped.body})


def _shaped(status: int, body: bytes, *, hidden: tuple[str, ...], shown: str) -> Answer:
    """OpenAI's {"error": {…}}, older vLLM's flat object and FastAPI's {"detail": …} become the first.

    The engine's names for models are replaced by the client's, its file paths are left out.
    """
    try:
        said: Any = json.loads(body)
    except ValueError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        said = said["error"]
    if not isinstance(said, dict):
        said = {"message": body[:500].decode(errors="replace")}
    message = said.get("message") or said.get("detail") or f"the engine refused the request ({status})"
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    for name in hidden:
        text = text.replace(name, shown)
    text = without_paths(text)
    kind, param, code = (said.get(key) if isinstance(said.get(key), str) else None for key in _FIELDS)
    default_kind = "server_error" if status >= 500 else "invalid_request_error"
    return answer(status, text, kind=kind or default_kind, param=param, code=code)
