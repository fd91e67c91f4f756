"""Where a rank computes, and in which type."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuneloom_trainer.worker.protocol import WorkerFailed


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device and the type of frozen weights and activations on it."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def detect(cls, wanted: str) -> Hardware:
        """bf16 on GPUs (older ones emulate it); fp32 on CPUs, where 4-bit kernels are 20 times slower in bf16."""
        if wanted != "cpu" and torch.cuda.is_available():
            return cls(torch.device("cuda"), torch.bfloat16)
        if wanted == "cuda":
            raise WorkerFailed("NO_GPU", "device cuda was asked for and there is no GPU; use device auto or cpu")
        return cls(torch.device("cpu"), torch.float32)
