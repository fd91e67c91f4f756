"""Replicas: which engine serves which full-weight version, and in which state it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tuneloom_common.kinds import Kind
from tuneloom_engine.failures import EngineFailed
from tuneloom_engine.process import Activity, EngineProcess


class State(StrEnum):
    """FETCHING -> WAITING (for a place) -> STARTING -> READY -> STOPPING; FAILED from STARTING or READY.

    What is stopped, or ends before it is started, is forgotten.
    """

    FETCHING = "fetching"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Replica:
    """One version's engine. Times are in seconds since 1970. `kind` is known once the version is found."""

    name: str
    started: float
    last_used: float
    digest: str = ""
    kind: Kind | None = None
    state: State = State.FETCHING
    has_place: bool = False
    process: EngineProcess | None = None
    activity: Activity | None = None
    start_seconds: float | None = None
    failure: EngineFailed | None = None
    stopping: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.state is State.READY and self.process is not None and self.process.running

    def describe(self, *, now: float, expected_seconds: float | None) -> dict[str, Any]:
        """For the HTTP API."""
        seconds = now - self.started if self.start_seconds is None else self.start_seconds
        shown: dict[str, Any] = {
            "name": self.name,
            "digest": self.digest,
            "kind": self.kind,
            "state": self.state,
            "started": _shown(self.started),
            "last_used": _shown(self.last_used),
            "seconds": round(seconds, 1),
            "expected_seconds": expected_seconds,
        }
        if self.process is not None and self.process.running:
            shown |= {"url": self.process.url, "pid": self.process.pid}
        if self.failure is not None:
            shown |= self.failure.describe()
        return shown


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
