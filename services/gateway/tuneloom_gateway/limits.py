"""How big and how many requests may be."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from tuneloom_gateway.errors import BodyTooLarge, ClientGone, TooManyRequests
from tuneloom_gateway.exchange import header


class Concurrency:
    """ASGI middleware: a ceiling on the requests under /v1 that are in flight in this process."""

    def __init__(self, app: ASGIApp, *, at_most: int) -> None:
        self._app = app
        self._at_most = at_most
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._at_most:
            raise TooManyRequests(
                f"{self._at_most} requests are in flight already; try again shortly, or raise "
                "TUNELOOM_GATEWAY_MAX_CONCURRENT_REQUESTS"
            )
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1


async def read_body(scope: Scope, receive: Receive, *, at_most: int) -> bytes:
    """The whole request body. Raises BodyTooLarge before holding more than `at_most` bytes."""
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > at_most:
        raise _too_large(f"is {int(declared):,} bytes", at_most)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > at_most:
            raise _too_large(f"has more than {at_most:,} bytes", at_most)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(what: str, at_most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the request body {what}, the limit is {at_most:,}; send less, or raise "
        "TUNELOOM_GATEWAY_MAX_BODY_BYTES at the gateway"
    )
