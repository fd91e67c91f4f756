"""The worker's contract with whoever starts it: spec file, event log, exit statuses. No torch here."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from tuneloom_common.manifests import FileEntry
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import MAX_COUNT, Count, DataReport, EventBody, Note, Progress, SampleChat, Text

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_STOPPED = 75  # asked to leave by SIGTERM, everything is saved

SPEC_FILE = "spec.json"
CHECKPOINTS_DIR = "checkpoints"


class WorkerSpec(BaseModel):
    """Everything a worker needs. Paths are local; `dataset` is a file in the `messages` format.

    `lease_epoch` is the attempt everything the worker writes belongs to; `registered_step`, saved by the attempt
    `registered_epoch`, is the newest checkpoint that is registered: later ones found on disk are told again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    base_dir: Path
    dataset: Path
    training: TrainingSpec
    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_threads: int = 0
    lease_epoch: int = 0
    registered_step: int = 0
    registered_epoch: int = 0

    @property
    def registered(self) -> tuple[int, int]:
        return self.registered_epoch, self.registered_step

    @classmethod
    def read(cls, run_dir: Path) -> WorkerSpec:
        return cls.model_validate_json((run_dir / SPEC_FILE).read_bytes())

    def write(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / SPEC_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")


def events_file(lease_epoch: int) -> str:
    """Every attempt has a log of its own: what an earlier one wrote can never be taken for news."""
    return f"events-{lease_epoch:06d}.jsonl"


class WorkerFailed(Exception):
    """Training cannot go on, and repeating it would fail the same way. `reason` is for machines."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Validated(EventBody):
    """The data is read and rendered; the model is loaded next."""

    kind: ClassVar[str] = "validated"


class Training(EventBody):
    """The model is loaded and steps begin after `step`."""

    kind: ClassVar[str] = "training"
    step: Count = 0
    total_steps: Count = 0
    device: Text = ""


class CheckpointSaved(EventBody):
    """A checkpoint is whole on disk, at `path` in the run directory; `last` when no step follows. `files` are stored
    already where the run directory is out of the trainer's reach."""

    kind: ClassVar[str] = "checkpoint"
    step: Count
    path: Annotated[str, Field(max_length=4096)]
    loss: float = 0.0
    last: bool = False
    files: tuple[FileEntry, ...] = ()


class Exited(EventBody):
    """The worker has ended; said for it by the process that ran it elsewhere."""

    kind: ClassVar[str] = "exited"
    status: Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)]
    last_words: Text = ""


class Failed(EventBody):
    """Trying again would end the same way."""

    kind: ClassVar[str] = "failed"
    reason: Text
    message: Text


class Finished(EventBody):
    """Every step is done and saved."""

    kind: ClassVar[str] = "finished"
    step: Count = 0


_KINDS = (DataReport, Progress, SampleChat, Note, Validated, Training, CheckpointSaved, Exited, Failed, Finished)
EVENTS: dict[str, type[EventBody]] = {event.kind: event for event in _KINDS}


NOT_AN_EVENT = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What LoggedEvent.parse raises for a line that is none."""


class _Head(BaseModel):
    seq: Count
    epoch: Count = 0


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A line of the event log. `event` is None when this release does not know its type."""

    sequence: int
    lease_epoch: int
    event: EventBody | None

    @classmethod
    def parse(cls, line: bytes) -> LoggedEvent:
        """Raises NOT_AN_EVENT when the line is none, or nothing that can be stored and shown."""
        fields = json.loads(line)
        known = EVENTS.get(fields["type"])
        head = _Head(seq=int(fields["seq"]), epoch=int(fields.get("epoch", 0)))  # a progress event's is a fraction
        return cls(head.seq, head.epoch, known.model_validate(fields) if known else None)


class Events(Protocol):
    """Where a worker tells what happens: a log on disk, or nowhere on ranks that only work."""

    def emit(self, event: EventBody) -> None:
        """Returns once it is told."""


class EventLog:
    """Appends typed events, one JSON object a line, with a sequence that goes on after a restart."""

    def __init__(self, path: Path, *, lease_epoch: int = 0) -> None:
        self._epoch = lease_epoch
        self._seq = 0
        if path.exists():
            whole = path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]  # a line cut short by a crash was never an event
            if len(kept) < len(whole):
                os.truncate(path, len(kept))
            if kept:
                self._seq = json.loads(kept.splitlines()[-1])["seq"]
        self._file = path.open("a", encoding="utf-8")

    def emit(self, event: EventBody) -> None:
        self._seq += 1
        head = {"seq": self._seq, "epoch": self._epoch, "time": round(time.time(), 3), "type": event.kind}
        self._file.write(json.dumps({**head, **event.model_dump(mode="json")}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
