"""Keeps the routing true: follows the registry's stream of changes, for as long as the gateway runs.

Every connection starts with the next change and an empty memory. Going on after the last event seen would gain
nothing, and would miss changes of a registry restored from a backup, whose numbers start lower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tuneloom_common.errors import TuneloomError
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.routing.registry import Registry
from tuneloom_gateway.routing.resolution import Routing

FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 5.0
NEXT_CHANGE = -1
log = structlog.get_logger()


class Follow:
    """A background task; `run` returns only by cancellation."""

    def __init__(
        self,
        registry: Registry,
        routing: Routing,
        metrics: Metrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._routing = routing
        self._metrics = metrics
        self._sleep = sleep
        self._retry_seconds = FIRST_RETRY_SECONDS

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
                log.info("the registry ended the watch stream, reconnecting")
            except TuneloomError as error:
                log.warning(f"not watching the registry: {error.message}")
            except Exception:
                log.exception("not watching the registry")
            finally:
                self._routing.lost()
                self._metrics.watching.set(0)
            await self._sleep(self._retry_seconds)
            self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)

    async def _follow(self) -> None:
        events = await self._registry.watch(NEXT_CHANGE)
        self._routing.live()
        self._metrics.watching.set(1)
        self._retry_seconds = FIRST_RETRY_SECONDS
        async for event in events:
            self._routing.changed(event.model)
