"""Loss, speed and time to go."""

from __future__ import annotations

import time
from collections.abc import Callable

from tuneloom_trainer.training_events import Progress
from tuneloom_trainer.worker.learner import StepResult


class Meter:
    """Counts since the last report. Times in seconds of the monotonic clock."""

    def __init__(self, total_steps: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total_steps, clock
        self._started, self._first = clock(), done
        self._reset()

    def _reset(self) -> None:
        self._since, self._tokens, self._trained, self._loss_sum = self._clock(), 0.0, 0.0, 0.0

    def add(self, result: StepResult) -> None:
        self._tokens += result.tokens
        self._trained += result.trained_tokens
        self._loss_sum += result.loss * result.trained_tokens

    def report(self, step: int, *, learning_rate: float, epoch: float) -> Progress:
        now = self._clock()
        pace = (now - self._started) / max(1, step - self._first)
        progress = Progress(
            step=step,
            total_steps=self._total,
            loss=self._loss_sum / max(1, self._trained),
            learning_rate=learning_rate,
            tokens_per_second=self._tokens / max(1e-9, now - self._since),
            eta_seconds=pace * (self._total - step),
            epoch=epoch,
        )
        self._reset()
        return progress
