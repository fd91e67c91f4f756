"""How a job is spread over processes. The loop, data and checkpoints ask a strategy and know nothing else of ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch

from tuneloom_trainer.worker.hardware import Hardware


class Strategy(Protocol):
    """One rank of `world_size`. Rank 0 writes and tells; every call but `hardware` is made by all ranks alike."""

    rank: int
    world_size: int
    hardware: Hardware

    def total(self, value: float) -> float:
        """The sum over all ranks."""

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Every rank then holds the sum of all ranks' gradients."""

    def barrier(self) -> None:
        """Returns when every rank has come here."""
