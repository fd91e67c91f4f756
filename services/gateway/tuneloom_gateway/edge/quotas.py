"""How many requests there may be at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from tuneloom_gateway.errors import TooManyRequests


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
