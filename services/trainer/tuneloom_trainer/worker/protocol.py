"""The worker's contract with whoever starts it: spec file, event log, exit statuses. No torch here."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tuneloom_trainer.specs import TrainingSpec

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_STOPPED = 75  # asked to leave by SIGTERM, everything is saved

SPEC_FILE = "spec.json"
EVENTS_FILE = "events.jsonl"
CHECKPOINTS_DIR = "checkpoints"


class WorkerSpec(BaseModel):
    """Everything a worker needs. Paths are local; `dataset` is a file in the `messages` format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    base_dir: Path
    dataset: Path
    training: TrainingSpec
    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_threads: int = 0

    @classmethod
    def read(cls, run_dir: Path) -> WorkerSpec:
        return cls.model_validate_json((run_dir / SPEC_FILE).read_bytes())

    def write(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / SPEC_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")


class WorkerFailed(Exception):
    """Training cannot go on, and repeating it would fail the same way. `reason` is for machines."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EventLog:
    """Appends typed events, one JSON object a line, with a sequence that goes on after a restart."""

    def __init__(self, path: Path) -> None:
        self._seq = 0
        if path.exists():
            whole = path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]  # a line cut short by a crash was never an event
            if len(kept) < len(whole):
                os.truncate(path, len(kept))
            if kept:
                self._seq = json.loads(kept.splitlines()[-1])["seq"]
        self._file = path.open("a", encoding="utf-8")

    def emit(self, kind: str, **fields: Any) -> None:
        self._seq += 1
        event = {"seq": self._seq, "time": round(time.time(), 3), "type": kind, **fields}
        self._file.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
