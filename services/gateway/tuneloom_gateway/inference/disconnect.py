"""Notices that a client has left, so that nobody computes for it any longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from tuneloom_gateway.errors import ClientGone


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block and raises ClientGone when the client disconnects. The body must have been read."""
    block = asyncio.current_task()
    assert block is not None  # noqa: S101 - always so in a coroutine
    left = False

    async def wait() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        block.cancel()

    waiter = asyncio.create_task(wait())
    try:
        yield
    except asyncio.CancelledError:
        if left and block.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        waiter.cancel()
