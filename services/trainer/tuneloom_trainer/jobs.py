"""The trainer's vocabulary: jobs, their states and the moves between them, and what can happen to a job."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import ValidationError

from tuneloom_common.queue import Lease
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import Count, DataReport, EventBody, Note, Progress, SampleChat, Text


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
class LogTail:
    """Whole lines from the end of a log; `truncated` when it has more before them."""

    text: str = ""
    truncated: bool = False

    @classmethod
    def of(cls, data: bytes, *, cut: bool) -> LogTail:
        """`cut`: the data begins one byte before the part that is wanted; a line that began before is left out."""
        return cls(_after_line(data).decode(errors="replace") if cut else data.decode(errors="replace"), cut)

    def within(self, max_bytes: int) -> LogTail:
        data = self.text.encode()
        return self if len(data) <= max_bytes else LogTail.of(data[-max_bytes - 1 :], cut=True)


def _after_line(data: bytes) -> bytes:
    return data.partition(b"\n")[2]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A registry version as a job knows it: resource name and digest."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning job.

    `lease_epoch` counts the claims, `failed_attempts` the workers lost in a row without progress, `worker_sequence`
    the events of the newest claim's worker stored so far. `promote` moves the output model's default to the result.
    """

    id: str
    base_model: str
    base: Artifact
    dataset: Artifact
    output_model: str
    recipe: str
    spec: TrainingSpec
    merge: bool
    state: JobState
    create_time: datetime
    update_time: datetime
    error: str = ""
    error_reason: str = ""
    progress: Progress | None = None
    result_version: str = ""
    merged_version: str = ""
    end_time: datetime | None = None
    lease_epoch: int = 0
    failed_attempts: int = 0
    worker_sequence: int = 0
    promote: bool = True

    @property
    def name(self) -> str:
        return f"trainingJobs/{self.id}"

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.lease_epoch)


class StateChanged(EventBody):
    """The job entered a state; `reason` is the error, or who asked."""

    kind: ClassVar[str] = "state_changed"
    state: JobState
    reason: Text = ""


class CheckpointRegistered(EventBody):
    """`version` is the checkpoint's name in the registry."""

    kind: ClassVar[str] = "checkpoint"
    step: Count
    version: Text
    loss: float = 0.0


BODIES: dict[str, type[EventBody]] = {
    body.kind: body for body in (StateChanged, Progress, SampleChat, CheckpointRegistered, DataReport, Note)
}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job."""

    sequence: int
    create_time: datetime
    body: EventBody


def read_body(kind: str, stored: Mapping[str, Any]) -> EventBody:
    """A body as any release stored it; a kind that is not known here, or does not fit, is told as a note."""
    if kind in BODIES:
        with suppress(ValidationError):
            return BODIES[kind].model_validate(stored)
    return Note(text=f"{kind}: {dict(stored)}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A registered checkpoint; `version` is its name in the registry, `last` whether training ends with it."""

    job_id: str
    step: int
    version: str
    loss: float
    create_time: datetime
    lease_epoch: int = 0
    last: bool = False
