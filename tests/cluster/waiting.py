"""Waiting for what another process does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.05


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Asks again and again; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what another process does has no event here
            await asyncio.sleep(POLL_SECONDS)
