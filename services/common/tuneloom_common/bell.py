"""Wakes watchers in this process early; they still poll, for writers in other processes."""

from __future__ import annotations

import asyncio


class Bell:
    """`ring()` wakes everyone who waits now."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_seconds: float) -> None:
        """Returns at the next ring, or after the timeout."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=timeout_seconds)
        finally:
            self._waiting.discard(future)
