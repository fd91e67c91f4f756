"""Single flight: concurrent calls for one key share one execution."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The execution goes on when a caller leaves: others wait for it, or will ask again."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def run(self, key: str, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Joins the execution for this key, or starts it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(start())
            self._running[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def disown(self) -> None:
        """Later callers start afresh; those already waiting get what they waited for."""
        self._running.clear()

    async def close(self) -> None:
        """Cancels what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, key: str, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # seen here in case every caller has left
