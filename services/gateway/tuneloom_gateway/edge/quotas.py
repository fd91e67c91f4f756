"""How much there may be at a time, of each caller and of all together: requests, and bytes of bodies."""

from __future__ import annotations

from collections import defaultdict

from starlette.types import ASGIApp, Receive, Scope, Send

from tuneloom_common.errors import ResourceExhausted
from tuneloom_gateway.edge.context import RequestContext
from tuneloom_gateway.errors import TooManyRequests


class Concurrency:
    """ASGI middleware: ceilings on the requests under /v1 that are in flight in this process."""

    def __init__(self, app: ASGIApp, *, at_most: int, per_principal: int) -> None:
        self._app = app
        self._at_most = at_most
        self._per_principal = per_principal
        self._in_flight = 0
        self._by_principal: defaultdict[str, int] = defaultdict(int)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        principal = RequestContext.of(scope).principal.id
        self._check(principal)
        self._in_flight += 1
        self._by_principal[principal] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._by_principal[principal] -= 1

    def _check(self, principal: str) -> None:
        if self._by_principal[principal] >= self._per_principal:
            raise TooManyRequests(
                f"{self._per_principal} requests of {principal} are in flight already; wait for one to end, or raise "
                "TUNELOOM_GATEWAY_MAX_CONCURRENT_REQUESTS_PER_KEY"
            )
        if self._in_flight >= self._at_most:
            raise TooManyRequests(
                f"{self._at_most} requests are in flight already; try again shortly, or raise "
                "TUNELOOM_GATEWAY_MAX_CONCURRENT_REQUESTS"
            )


class BodyBudget:
    """The bytes of request bodies in memory. One caller may have half of them."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._held = 0
        self._by_principal: defaultdict[str, int] = defaultdict(int)

    def hold(self, principal: str) -> HeldBody:
        """To be entered: everything added is given back at the end."""
        return HeldBody(self, principal)

    def _add(self, principal: str, count: int) -> None:
        if self._held + count > self._at_most:
            raise ResourceExhausted(
                "the gateway holds as many bytes of requests as it may; try again shortly, or raise "
                "TUNELOOM_GATEWAY_MAX_BODIES_BYTES",
                reason="TOO_MANY_BODIES",
            )
        if self._by_principal[principal] + count > self._at_most // 2:
            raise TooManyRequests(
                f"the requests of {principal} have more than {self._at_most // 2:,} bytes together; wait for some to "
                "end, or raise TUNELOOM_GATEWAY_MAX_BODIES_BYTES"
            )
        self._held += count
        self._by_principal[principal] += count

    def _remove(self, principal: str, count: int) -> None:
        self._held -= count
        self._by_principal[principal] -= count


class HeldBody:
    """One request's share of the budget."""

    __slots__ = ("_budget", "_count", "_principal")

    def __init__(self, budget: BodyBudget, principal: str) -> None:
        self._budget = budget
        self._principal = principal
        self._count = 0

    def add(self, count: int) -> None:
        """Raises TooManyRequests or ResourceExhausted when these bytes are too many."""
        self._budget._add(self._principal, count)
        self._count += count

    def __enter__(self) -> HeldBody:
        return self

    def __exit__(self, *_: object) -> None:
        if self._count:
            self._budget._remove(self._principal, self._count)
