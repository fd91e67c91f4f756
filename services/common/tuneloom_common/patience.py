"""Waiting for what may be back in a moment: another service that restarts, a database that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tuneloom_common.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.2
LAST_PAUSE_SECONDS = 5.0
RESTART_SECONDS = 600.0
T = TypeVar("T")
log = structlog.get_logger()


async def patient(
    call: Callable[[], Awaitable[T]],
    *,
    what: str,
    seconds: float | None = RESTART_SECONDS,
    passing: tuple[type[Exception], ...] = (Unavailable,),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Repeats a call while it fails with what may pass, for at most `seconds` (None: for ever); then raises what it
    raised last. `what` ends the log's sentence "waiting to …"."""
    end = None if seconds is None else clock() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except passing as error:
            if end is not None and clock() + pause > end:
                raise
            log.warning(f"waiting to {what}: {error_line(error)}")
        await sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)


def error_line(error: BaseException) -> str:
    """A database's error without its statement and parameters, which hold people's data."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:300]
