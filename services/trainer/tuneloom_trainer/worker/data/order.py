"""Which sequences each step trains on, and each rank's share of them: functions of (seed, epoch) alone.

A step is `accumulation` micro-batches. Every rank knows them all and takes every world_size-th sequence of each, so a
step is the same whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")
MicroBatch = list[int]


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of every micro-batch; it may be empty."""

    rank: int = 0
    world_size: int = 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        return items[self.rank :: self.world_size]


def steps(
    sequences: int, *, seed: int, batch_size: int, accumulation: int, done: int = 0
) -> Iterator[list[MicroBatch]]:
    """Endless steps of micro-batches of sequence numbers, after the first `done` steps."""
    batches = _micro_batches(sequences, seed=seed, batch_size=batch_size, first=done * accumulation)
    while True:
        yield list(islice(batches, accumulation))


def _micro_batches(sequences: int, *, seed: int, batch_size: int, first: int) -> Iterator[MicroBatch]:
    """Every epoch visits every sequence once; its last micro-batch may be short."""
    epoch, offset = divmod(first, -(-sequences // batch_size))
    while True:
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
        order: list[int] = torch.randperm(sequences, generator=generator).tolist()
        for start in range(offset * batch_size, sequences, batch_size):
            yield order[start : start + batch_size]
        epoch, offset = epoch + 1, 0


def derived_seed(seed: int, counter: int) -> int:
    """A seed for one step or epoch, within the 63 bits torch takes."""
    return (seed * 1_000_003 + counter) % (1 << 63)
