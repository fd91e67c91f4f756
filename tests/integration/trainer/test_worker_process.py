"""The worker as the launcher starts it: signals, exit statuses and last words."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from safetensors.numpy import load_file

from tests import tiny
from tuneloom_trainer.events import EventTail
from tuneloom_trainer.specs import load_recipes, resolve
from tuneloom_trainer.training_events import EventBody, Note, Progress
from tuneloom_trainer.worker.protocol import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    CheckpointSaved,
    Failed,
    Finished,
    LoggedEvent,
    WorkerSpec,
    events_file,
)

pytestmark = [pytest.mark.worker, pytest.mark.timeout(180)]

STEPS = 150
E = TypeVar("E", bound=EventBody)
ROW = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


class Worker:
    """A run directory and the processes that work on it, one after the other."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.tail = EventTail(run_dir / events_file(0), after=0)
        self.seen: list[LoggedEvent] = []

    def start(self) -> None:
        with (self.run_dir / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tuneloom_trainer.worker", str(self.run_dir)], stdout=log, stderr=log
            )

    def status(self) -> int:
        status = self.process.wait(120)
        self.seen += self.tail.read()
        return status

    def train_to(self, step: int) -> None:
        """Waits for a step to be reported."""
        while all(progress.step != step for progress in self.events(Progress)):
            self.seen += self.tail.read()
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail((self.run_dir / "worker.log").read_text())

    def events(self, kind: type[E]) -> list[E]:
        return [logged.event for logged in self.seen if isinstance(logged.event, kind)]


@pytest.fixture
def prepare(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def prepare(name: str, *, broken: bool = False, row: Any = ROW, **options: Any) -> Worker:
        if not (tmp_path / "base").exists():
            tiny.save_base(tmp_path / "base", broken=broken)
        tiny.save_rows(tmp_path / "rows.jsonl", [row])
        defaults = {"max_steps": STEPS, "save_steps": 10, "logging_steps": 1, "max_length": 64}
        WorkerSpec(
            job="job-1",
            base_dir=tmp_path / "base",
            dataset=tmp_path / "rows.jsonl",
            training=resolve(load_recipes(), "lora", {**defaults, **options}),
            device="cpu",
            num_threads=1,
        ).write(tmp_path / name)
        made.append(Worker(tmp_path / name))
        return made[-1]

    yield prepare
    for worker in made:
        if hasattr(worker, "process"):
            worker.process.kill()
            worker.process.wait()


def test_sigterm_saves_sigkill_costs_steps_and_both_go_on_to_the_same_end(prepare: Callable[..., Worker]) -> None:
    straight, worker = prepare("straight"), prepare("worker")
    straight.start()
    assert straight.status() == EXIT_DONE

    worker.start()
    worker.train_to(15)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.status() == EXIT_STOPPED
    saved = worker.events(CheckpointSaved)[-1]
    assert saved.step == worker.events(Progress)[-1].step < STEPS
    assert (worker.run_dir / saved.path / "checkpoint.json").is_file()

    worker.start()
    worker.train_to(saved.step + 25)
    worker.process.kill()
    assert worker.status() == -signal.SIGKILL

    worker.start()
    assert worker.status() == EXIT_DONE

    resumed = [note.text for note in worker.events(Note) if note.text.startswith("resumed")]
    assert resumed[0] == f"resumed from the checkpoint at step {saved.step}"
    assert len(resumed) == 2
    ends = [load_file(run.run_dir / f"checkpoints/step-{STEPS:08d}/weights.safetensors") for run in (straight, worker)]
    assert all((value == ends[1][name]).all() for name, value in ends[0].items())
    assert worker.events(Finished) == [worker.seen[-1].event]


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"broken": True}, "NON_FINITE_LOSS", "lower spec.learning_rate"),
        ({"row": [{"role": "user", "content": "hi"}]}, "DATA_CONTRACT", "row 1"),
        ({"lora": {"target_modules": ("nowhere",)}}, "TARGET_MODULES", "spec.lora.target_modules"),
    ],
)
def test_hopeless_training_fails_with_a_reason(
    prepare: Callable[..., Worker], options: dict[str, Any], reason: str, words: str
) -> None:
    worker = prepare("worker", **options)
    worker.start()

    assert worker.status() == EXIT_FAILED

    (failed,) = worker.events(Failed)
    assert failed.reason == reason
    assert words in failed.message
    assert not worker.events(Finished)
    assert not worker.events(CheckpointSaved)


def test_a_worker_that_cannot_even_start_does_not_exit_with_success(prepare: Callable[..., Worker]) -> None:
    worker = prepare("worker")
    (worker.run_dir / "spec.json").write_text("{")
    worker.start()

    assert worker.status() not in (EXIT_DONE, EXIT_STOPPED)
