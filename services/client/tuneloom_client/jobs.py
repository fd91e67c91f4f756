"""Training jobs, as their owners see them.

The spec stays the contract's own message: one typed representation on the way to the trainer is enough, and an
option that is added there is known here at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec
from tuneloom_client.versions import time_of


class JobState(StrEnum):
    """UNSPECIFIED stands for states that are newer than this client."""

    UNSPECIFIED = "unspecified"
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
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

    @classmethod
    def of(cls, number: jobs_pb2.JobState.ValueType) -> JobState:
        return _STATES.get(number, cls.UNSPECIFIED)


_STATES = {jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}"): state for state in JobState}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """`spec` holds what differs from the recipe; `output_model` is "models/{model}".

    Success moves the output model's `default` to the result, unless `promote` is False.
    """

    base_model: str
    dataset: str
    output_model: str
    recipe: str = ""
    spec: TrainingSpec = field(default_factory=TrainingSpec)
    merge: bool = False
    promote: bool = True

    def to_wire(self) -> jobs_pb2.TrainingJob:
        return jobs_pb2.TrainingJob(
            base_model=self.base_model,
            dataset=self.dataset,
            output_model=self.output_model,
            recipe=self.recipe,
            spec=self.spec,
            merge=self.merge,
            no_promote=not self.promote,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """See tuneloom.trainer.v1.Progress for the units."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    eta_seconds: float
    epoch: float

    @classmethod
    def of(cls, message: jobs_pb2.Progress) -> Progress:
        return cls(
            step=message.step,
            total_steps=message.total_steps,
            loss=message.loss,
            learning_rate=message.learning_rate,
            tokens_per_second=message.tokens_per_second,
            eta_seconds=message.eta_seconds,
            epoch=message.epoch,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """`progress` is None before training started; `error_reason` is the error for machines."""

    name: str
    base_model: str
    dataset: str
    output_model: str
    recipe: str
    spec: TrainingSpec
    merge: bool
    promote: bool
    state: JobState
    error: str
    error_reason: str
    progress: Progress | None
    result_version: str
    merged_version: str
    attempt: int
    create_time: datetime
    update_time: datetime
    end_time: datetime | None

    @classmethod
    def of(cls, message: jobs_pb2.TrainingJob) -> Job:
        return cls(
            name=message.name,
            base_model=message.base_model,
            dataset=message.dataset,
            output_model=message.output_model,
            recipe=message.recipe,
            spec=message.spec,
            merge=message.merge,
            promote=not message.no_promote,
            state=JobState.of(message.state),
            error=message.error,
            error_reason=message.error_reason,
            progress=Progress.of(message.progress) if message.progress.total_steps else None,
            result_version=message.result_version,
            merged_version=message.merged_version,
            attempt=message.attempt,
            create_time=time_of(message.create_time),
            update_time=time_of(message.update_time),
            end_time=time_of(message.end_time) if message.HasField("end_time") else None,
        )

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state. `model_name` is what to chat with, `version` the version in the registry."""

    name: str
    step: int
    version: str
    loss: float
    model_name: str
    create_time: datetime

    @classmethod
    def of(cls, message: jobs_pb2.Checkpoint) -> Checkpoint:
        return cls(
            name=message.name,
            step=message.step,
            version=message.version,
            loss=message.loss,
            model_name=message.model_name,
            create_time=time_of(message.create_time),
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named set of defaults."""

    name: str
    description: str
    spec: TrainingSpec

    @classmethod
    def of(cls, message: trainer_pb2.Recipe) -> Recipe:
        return cls(message.name, message.description, message.spec)


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a worker's log; `truncated` when there is more before it."""

    text: str
    truncated: bool
