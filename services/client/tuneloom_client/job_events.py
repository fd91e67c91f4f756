"""What happens to a job, as its watchers hear it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tuneloom.trainer.v1 import trainer_pb2
from tuneloom_client.jobs import Checkpoint, JobState, Progress
from tuneloom_client.versions import time_of


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state entered, and why when there is a reason."""

    state: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class SampleChat:
    step: int
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """What the worker found in the data; see tuneloom.trainer.v1.DataReport."""

    rows: int
    tokens: int
    trained_tokens: int
    truncated_rows: int
    duplicate_rows: int
    sequences: int
    stop_token_trained: bool


@dataclass(frozen=True, slots=True)
class Note:
    text: str


Happening = StateChanged | Progress | SampleChat | Checkpoint | DataReport | Note


@dataclass(frozen=True, slots=True)
class JobEvent:
    """`happening` is None when it is of a kind newer than this client."""

    sequence: int
    create_time: datetime
    happening: Happening | None

    @classmethod
    def of(cls, message: trainer_pb2.TrainingJobEvent) -> JobEvent:
        return cls(message.sequence, time_of(message.create_time), _happening(message))


def _happening(message: trainer_pb2.TrainingJobEvent) -> Happening | None:
    match message.WhichOneof("event"):
        case "state_changed":
            return StateChanged(JobState.of(message.state_changed.state), message.state_changed.reason)
        case "progress":
            return Progress.of(message.progress)
        case "sample_chat":
            chat = message.sample_chat
            return SampleChat(chat.step, chat.prompt, chat.answer)
        case "checkpoint":
            return Checkpoint.of(message.checkpoint)
        case "data_report":
            data = message.data_report
            return DataReport(
                rows=data.rows,
                tokens=data.tokens,
                trained_tokens=data.trained_tokens,
                truncated_rows=data.truncated_rows,
                duplicate_rows=data.duplicate_rows,
                sequences=data.sequences,
                stop_token_trained=data.stop_token_trained,
            )
        case "note":
            return Note(message.note.text)
        case _:
            return None
