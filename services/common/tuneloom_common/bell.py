"""Wakes watchers in this process early; they still poll, for writers in other processes."""

from __future__ import annotations

import asyncio


class Bell:
    """`ring()` wakes everyone who waits now, and everyone who will wait for a ring after an earlier count.

    A watcher notes `rings`, looks, and then waits since that count: nothing rung while it looked is missed.
    """

    def __init__(self) -> None:
        self.rings = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        self.rings += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_seconds: float, *, since: int | None = None) -> None:
        """Returns at the next ring, at once when there was one since that count, or after the timeout."""
        if since is not None and since != self.rings:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=timeout_seconds)
        finally:
            self._waiting.discard(future)
