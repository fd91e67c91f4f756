"""Engines that did not start: told with their cause, and not tried again at once.

A version that cannot be served must not keep a machine busy with starting it, nor push out engines that work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneloom_common.errors import Unavailable

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
FORGET_SECONDS = 1800.0
MAX_REMEMBERED = 256


class EngineFailed(Unavailable):
    """`log` are the lines of the engine's log that tell why."""

    default_reason = "ENGINE_FAILED"

    def __init__(self, message: str, *, log: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.log = log
        self.retry_after_seconds = retry_after_seconds

    def describe(self) -> dict[str, Any]:
        """For the HTTP API."""
        return {
            "error": self.message,
            "reason": self.reason,
            "log": self.log,
            "retry_after_seconds": round(self.retry_after_seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Setback:
    """The last of `count` failed starts in a row; times in seconds."""

    failure: EngineFailed
    count: int
    time: float

    @property
    def pause_seconds(self) -> float:
        return min(FIRST_PAUSE_SECONDS * 2.0 ** (self.count - 1), LONGEST_PAUSE_SECONDS)


class Setbacks:
    """By engine name. A start that succeeds, an order to stop, or time makes them forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_name: dict[str, Setback] = {}

    def note(self, name: str, failure: EngineFailed) -> None:
        before = self._recent(name)
        self._by_name.pop(name, None)
        setback = self._by_name[name] = Setback(failure, before.count + 1 if before else 1, self._clock())
        failure.retry_after_seconds = setback.pause_seconds
        if len(self._by_name) > MAX_REMEMBERED:
            del self._by_name[next(iter(self._by_name))]

    def forget(self, name: str) -> None:
        self._by_name.pop(name, None)

    def check_pause(self, name: str) -> None:
        """Raises the last failure while it is too early for another start."""
        setback = self._recent(name)
        if setback is None:
            return
        left = setback.time + setback.pause_seconds - self._clock()
        if left > 0:
            failure = setback.failure
            raise EngineFailed(failure.message, log=failure.log, retry_after_seconds=left)

    def check_may_displace(self, name: str) -> None:
        """Raises the last failure: what did not start takes no place from an engine that works."""
        if setback := self._recent(name):
            failure = setback.failure
            raise EngineFailed(
                f"{failure.message}. Every place is taken by an engine that works, so it was not tried again; stop one "
                "with DELETE /replicas/NAME or raise TUNELOOM_ENGINE_MAX_REPLICAS",
                log=failure.log,
                retry_after_seconds=setback.pause_seconds,
            )

    def _recent(self, name: str) -> Setback | None:
        setback = self._by_name.get(name)
        return setback if setback and self._clock() - setback.time < FORGET_SECONDS else None
