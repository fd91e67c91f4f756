"""What a job learns from: how rows become batches, and what is minimised over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.data.batches import Batch, TrainingData
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.objectives.sft import SupervisedFineTuning
from tuneloom_trainer.worker.preflight import Base


class Objective(Protocol):
    """Batches, and a loss that is a sum over their trained tokens: the loop divides by the whole step's."""

    def load(self, path: Path, base: Base, spec: TrainingSpec) -> TrainingData:
        """Raises WorkerFailed naming the rows when the file cannot be trained on."""

    def summed_loss(self, model: Any, batch: Batch, hardware: Hardware) -> torch.Tensor:
        """A scalar with a gradient."""


OBJECTIVES: dict[str, Objective] = {"sft": SupervisedFineTuning()}
