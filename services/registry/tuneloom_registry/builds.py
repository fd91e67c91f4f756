"""The registry's vocabulary of builds: what to make of a version, and how far that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from tuneloom_common.queue import Lease
from tuneloom_registry.versions import Fence

DEFAULT_MAX_SHARD_BYTES = 2_000_000_000
DEFAULT_MIN_GREEDY_AGREEMENT = 0.99


class BuildState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED)


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """What to build from `source`, a version name. The merge options are ignored by a conversion."""

    action: Literal["convert", "merge"]
    source: str
    max_shard_size_bytes: int = DEFAULT_MAX_SHARD_BYTES
    proof_prompts: tuple[str, ...] = ()
    min_greedy_agreement: float = DEFAULT_MIN_GREEDY_AGREEMENT


@dataclass(frozen=True, slots=True)
class Build:
    """One unit of build work. `lease_epoch` counts the claims; only the newest may write."""

    id: str
    spec: BuildSpec
    target_model: str
    target_aliases: tuple[str, ...]
    fence: Fence | None
    state: BuildState
    create_time: datetime
    error: str = ""
    progress: str = ""
    result_version: str = ""
    lease_epoch: int = 0
    end_time: datetime | None = None

    @property
    def name(self) -> str:
        return f"builds/{self.id}"

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.lease_epoch)
