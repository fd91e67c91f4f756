"""The model in training with its optimizer, one step at a time.

The loss is the mean over all trained tokens of a step, whatever its micro-batches and ranks: each micro-batch's summed
loss is divided by the whole step's token count, so accumulation changes nothing but memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.data.batches import Batch
from tuneloom_trainer.worker.data.order import derived_seed
from tuneloom_trainer.worker.model import load_model, trainable_parameters
from tuneloom_trainer.worker.objectives import Objective
from tuneloom_trainer.worker.protocol import WorkerFailed
from tuneloom_trainer.worker.strategies import Strategy

ADAM_BETAS = (0.9, 0.999)
RANK_SEEDS = 1 << 40  # more than any number of steps


@dataclass(frozen=True, slots=True)
class StepResult:
    """Of all ranks together; `loss` is the mean per trained token, NaN when the gradient was not finite."""

    loss: float
    tokens: float
    trained_tokens: float


class Learner:
    """Dropout and noise are functions of (seed, step, rank), so a checkpoint needs no generator's state."""

    def __init__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        *,
        objective: Objective,
        strategy: Strategy,
        spec: TrainingSpec,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.parameters = trainable_parameters(model)
        self._objective = objective
        self._strategy = strategy
        self._spec = spec

    @classmethod
    def load(cls, base_dir: Path, spec: TrainingSpec, *, objective: Objective, strategy: Strategy) -> Learner:
        model = load_model(base_dir, spec, strategy.hardware)
        optimizer = torch.optim.AdamW(
            trainable_parameters(model).values(),
            lr=spec.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=spec.weight_decay,
        )
        return cls(model, optimizer, objective=objective, strategy=strategy, spec=spec)

    def step(self, number: int, batches: list[Batch], *, learning_rate: float) -> StepResult:
        """One optimizer step over this rank's micro-batches; raises WorkerFailed when it is not finite."""
        torch.manual_seed(derived_seed(self._spec.seed, number + self._strategy.rank * RANK_SEEDS))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        result = self.learn(batches)
        if not math.isfinite(result.loss):
            raise WorkerFailed(
                "NON_FINITE_LOSS",
                f"the loss or its gradient became {result.loss} at step {number}; lower spec.learning_rate (now "
                f"{self._spec.learning_rate:g}) and submit again, the checkpoints before it are kept",
            )
        return result

    def learn(self, batches: list[Batch]) -> StepResult:
        """Gradients of all micro-batches and ranks, then the optimizer; weights stay when a gradient is not finite."""
        tokens = self._strategy.total(sum(batch.tokens for batch in batches))
        trained = self._strategy.total(sum(batch.trained_tokens for batch in batches))
        total = 0.0
        for batch in batches:
            loss = self._objective.summed_loss(self.model, batch, self._strategy.hardware) / trained
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self._strategy.sum_gradients(self.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._spec.max_grad_norm or math.inf)
        if not torch.isfinite(norm):
            return StepResult(math.nan, tokens, trained)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(self._strategy.total(total), tokens, trained)
