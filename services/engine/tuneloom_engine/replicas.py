"""Replicas: which engine serves which full-weight version, and in which state it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tuneloom_common.kinds import Kind
from tuneloom_engine.process import Activity, EngineProcess


class State(StrEnum):
    """STARTING -> READY -> STOPPING, and FAILED from STARTING or READY. A stopped replica is forgotten."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Replica:
    """One version's engine. Times are in seconds since 1970."""

    name: str
    digest: str
    kind: Kind
    started: float
    last_used: float
    state: State = State.STARTING
    process: EngineProcess | None = None
    activity: Activity | None = None
    error: str = ""
    log_end: str = ""
    stopping: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.state is State.READY and self.process is not None and self.process.running

    def describe(self) -> dict[str, Any]:
        """For the HTTP API."""
        shown: dict[str, Any] = {
            "name": self.name,
            "digest": self.digest,
            "kind": self.kind,
            "state": self.state,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "last_used": datetime.fromtimestamp(self.last_used, UTC).isoformat(timespec="seconds"),
        }
        if self.process is not None and self.process.running:
            shown |= {"url": self.process.url, "pid": self.process.pid, "port": self.process.port}
        if self.error:
            shown |= {"error": self.error, "log": self.log_end}
        return shown
