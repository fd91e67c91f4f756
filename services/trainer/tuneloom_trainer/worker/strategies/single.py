"""One process on one device."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tuneloom_trainer.worker.hardware import Hardware


class Single:
    """The only rank."""

    rank = 0
    world_size = 1

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware

    def total(self, value: float) -> float:
        return value

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        return

    def barrier(self) -> None:
        return
