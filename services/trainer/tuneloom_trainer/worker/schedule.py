"""How many steps a job has, and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneloom_trainer.specs import TrainingSpec


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a job over a number of sequences. Steps count from 1."""

    spec: TrainingSpec
    sequences: int

    @property
    def steps_per_epoch(self) -> float:
        return math.ceil(self.sequences / self.spec.batch_size) / self.spec.gradient_accumulation_steps

    @property
    def total_steps(self) -> int:
        return self.spec.max_steps or max(1, math.ceil(self.spec.num_epochs * self.steps_per_epoch))

    def epoch(self, step: int) -> float:
        """Passes over the data after a step."""
        return step / self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        return self.spec.learning_rate * self.factor(step)

    def factor(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, then the schedule."""
        total = self.total_steps
        warmup = math.ceil(self.spec.warmup_ratio * total)
        if step <= warmup:
            return step / warmup
        if self.spec.lr_scheduler == "constant":
            return 1.0
        progress = (step - warmup) / max(1, total - warmup)
        if self.spec.lr_scheduler == "linear":
            return max(1 - progress, 1 / max(1, total))
        return 0.5 * (1 + math.cos(math.pi * progress * (1 - 1e-3)))

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after a step."""
        every = self.spec.save_steps
        return step == self.total_steps or bool(every and step % every == 0)

    def reports(self, step: int) -> bool:
        return step == self.total_steps or step % self.spec.logging_steps == 0
