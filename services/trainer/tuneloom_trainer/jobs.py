"""The trainer's vocabulary: jobs, their states and the moves between them. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """See tuneloom.trainer.v1.JobState."""

    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return not MOVES[self]

    @property
    def leased(self) -> bool:
        """Whether a runner holds the job in this state."""
        return self in LEASED


LEASED = frozenset({JobState.VALIDATING, JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.VALIDATING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.VALIDATING: frozenset(
        {JobState.RUNNING, JobState.FAILED, JobState.PAUSING, JobState.CANCELLING, JobState.QUEUED}
    ),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.PAUSING, JobState.CANCELLING, JobState.QUEUED}
    ),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.FAILED, JobState.CANCELLING, JobState.SUCCEEDED}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A registry version as a job knows it: resource name and digest."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning job.

    `lease_epoch` counts the claims, `crash_count` the workers that died on their own, `worker_sequence` the worker
    events stored so far.
    """

    id: str
    base_model: str
    base: Artifact
    dataset: Artifact
    output_model: str
    recipe: str
    spec: dict[str, Any]
    merge: bool
    state: JobState
    create_time: datetime
    update_time: datetime
    error: str = ""
    error_reason: str = ""
    progress: dict[str, Any] | None = None
    result_version: str = ""
    merged_version: str = ""
    end_time: datetime | None = None
    lease_epoch: int = 0
    crash_count: int = 0
    worker_sequence: int = 0

    @property
    def name(self) -> str:
        return f"trainingJobs/{self.id}"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job. `kind` names the field of TrainingJobEvent that `body` fills."""

    sequence: int
    create_time: datetime
    kind: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A registered checkpoint; `version` is its name in the registry."""

    job_id: str
    step: int
    version: str
    loss: float
    create_time: datetime
