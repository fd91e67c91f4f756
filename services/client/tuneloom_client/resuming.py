"""Streams that survive the death of the service that sends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from tuneloom_common.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 2.0
FIRST_ANSWER_SECONDS = 5.0


class Sequenced(Protocol):
    @property
    def sequence(self) -> int: ...


E = TypeVar("E", bound=Sequenced)


async def resumed(
    open_: Callable[[int], AsyncIterator[E]],
    *,
    after: int,
    patience_seconds: float,
    on_wait: Callable[[Unavailable], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[E]:
    """The events after a sequence, each once, to the end of the stream.

    A broken stream is opened again after the last event seen. `patience_seconds` without a word ends it with
    Unavailable; FIRST_ANSWER_SECONDS do while nothing was ever heard: what never ran will not come back.
    """
    limit = min(FIRST_ANSWER_SECONDS, patience_seconds)
    heard, pause = clock(), FIRST_PAUSE_SECONDS
    while True:
        try:
            async for event in open_(after):
                after, limit = event.sequence, patience_seconds
                heard, pause = clock(), FIRST_PAUSE_SECONDS
                yield event
            return
        except Unavailable as error:
            if clock() + pause > heard + limit:
                raise
            on_wait(error)
        await sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
