"""How long a caller waits for a service that is away.

Every call that may be repeated is repeated by gRPC itself for about a second, which covers a dropped connection.
Callers with work to lose wait out a restart with `patient`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from tuneloom_common.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 5.0
RESTART_SECONDS = 600.0
T = TypeVar("T")
log = structlog.get_logger()


def retry_config(service: str, methods: Sequence[str]) -> str:
    """gRPC's service config: these methods of a service are tried four times within about a second.

    When half of the calls fail, the throttle ends the repeating: a service that is down is not asked four times
    as often.
    """
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for method in methods]
    return json.dumps(
        {
            "methodConfig": [{"name": names, "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
        }
    )


async def patient(
    call: Callable[[], Awaitable[T]],
    *,
    seconds: float = RESTART_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_wait: Callable[[Unavailable], None] = lambda error: log.warning(f"waiting: {error}"),
) -> T:
    """Repeats a call while its service is unavailable, for `seconds` at most; then raises what it raised last."""
    deadline, pause = clock() + seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except Unavailable as error:
            if clock() + pause > deadline:
                raise
            on_wait(error)
        await sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
