"""Works through a queue: a loop per slot, each attempt under a lease that is kept alive beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from tuneloom_common.errors import Unavailable
from tuneloom_common.notifier import Notifier
from tuneloom_common.patience import FIRST_PAUSE_SECONDS, error_line, patient
from tuneloom_common.queue import LeaseLost

POLL_SECONDS = 1.0
PASSING = (Unavailable,)
"""What may be over in a moment: a database that is away, busy or full; another service that restarts."""

T = TypeVar("T")
log = structlog.get_logger()


class Slots(Generic[T]):
    """`claim` gets the ids that this process holds and returns an item or None; `process` carries it to the end of
    one attempt. What it raises costs that attempt and nothing else. `topic` is notified when there may be new work.
    With a `count` of 0, this process leaves the work to others."""

    def __init__(
        self,
        *,
        count: int,
        claim: Callable[[Collection[str]], Awaitable[T | None]],
        process: Callable[[T], Awaitable[None]],
        id_of: Callable[[T], str],
        notifier: Notifier,
        topic: str,
    ) -> None:
        self._count = count
        self._claim = claim
        self._process = process
        self._id_of = id_of
        self._notifier = notifier
        self._topic = topic
        self._mine: set[str] = set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._count):
                slots.create_task(self._work())
            if not self._count:
                await asyncio.Event().wait()

    async def _work(self) -> None:
        with self._notifier.subscribe(self._topic) as changes:
            while True:
                if not await self._once():
                    await changes.wait(POLL_SECONDS)

    async def _once(self) -> bool:
        """Whether there was work."""
        try:
            item = await self._claim(self._mine)
        except LeaseLost:  # somebody was faster
            return True
        except PASSING as error:
            log.warning(f"cannot claim work, trying again: {error_line(error)}")
            return False
        if item is None:
            return False
        self._mine.add(self._id_of(item))
        try:
            await self._process(item)
        except PASSING as error:  # the lease runs out and the item is claimed again
            _go_on_only_if_nobody_cancelled()
            log.warning(f"an attempt could not be ended: {error_line(error)}", item=self._id_of(item))
        except Exception:  # a mistake of ours in one item must not end the others
            _go_on_only_if_nobody_cancelled()
            log.exception("an attempt failed unexpectedly; it is tried again when its lease runs out")
        finally:
            self._mine.discard(self._id_of(item))
        return True


def _go_on_only_if_nobody_cancelled() -> None:
    """An error raised while a cancellation was being handled must not take its place."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def while_held(work: Coroutine[Any, Any, T], keep: Coroutine[Any, Any, None]) -> T:
    """Runs work beside what keeps its lease. When the keeper ends first, the work is cancelled and its error raised."""
    working, keeping = asyncio.ensure_future(work), asyncio.ensure_future(keep)
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            keeping.result()
            raise LeaseLost
        return working.result()
    finally:
        for task in (working, keeping):  # the lease is kept until the work has ended: a worker may be saving
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()


async def keep_lease(beat: Callable[[], Awaitable[None]], *, every_seconds: float) -> None:
    """Beats until cancelled, or until the lease is lost. A database that is away is waited out: nobody else can claim
    there either."""
    while True:
        try:
            await beat()
            await asyncio.sleep(every_seconds)
        except PASSING as error:
            log.warning(f"cannot extend a lease, trying again: {error_line(error)}")
            await asyncio.sleep(FIRST_PAUSE_SECONDS)


async def patiently(call: Callable[[], Awaitable[T]], *, what: str, seconds: float | None = None) -> T:
    """`patient`, also while the database is away; by default for ever."""
    return await patient(call, what=what, seconds=seconds, passing=PASSING)
