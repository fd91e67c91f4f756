"""Sequences of whole examples, collated into the tensors of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tuneloom_trainer.training_events import DataReport
from tuneloom_trainer.worker.data.order import Share, steps
from tuneloom_trainer.worker.data.packing import pack
from tuneloom_trainer.worker.data.rendering import Example

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of shape [batch, length], except `attention_mask` [batch, 1, length, length] of booleans.

    `labels[b, t]` is the token to predict at position t (already shifted), or IGNORED. Examples packed into one
    sequence neither attend to each other nor share positions.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    tokens: int
    trained_tokens: int


class PackedDataset:
    """The examples of a job, packed into sequences."""

    def __init__(self, examples: Sequence[Example], *, max_length: int, packing: bool, seed: int) -> None:
        self._examples = examples
        self._seed = seed
        lengths = [len(example.tokens) for example in examples]
        self._sequences = pack(lengths, max_length) if packing else [[i] for i in range(len(examples))]

    def __len__(self) -> int:
        return len(self._sequences)

    def steps(
        self, *, batch_size: int, accumulation: int = 1, done: int = 0, share: Share | None = None
    ) -> Iterator[list[Batch]]:
        """The share of each step after the first `done`, endlessly; micro-batches without a sequence are left out."""
        share = share or Share()
        for step in steps(len(self), seed=self._seed, batch_size=batch_size, accumulation=accumulation, done=done):
            shares = [share.of(micro_batch) for micro_batch in step]
            yield [self._collate(numbers) for numbers in shares if numbers]

    def _collate(self, numbers: Sequence[int]) -> Batch:
        return collate([[self._examples[index] for index in self._sequences[number]] for number in numbers])


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a file became. `unusable_rows` are the numbers of rows that are left out."""

    dataset: PackedDataset
    report: DataReport
    unusable_rows: tuple[int, ...] = ()


def collate(rows: Sequence[Sequence[Example]]) -> Batch:
    """One sequence of examples a row, padded on the right."""
    length = max(sum(len(example.tokens) for example in row) for row in rows)
    shape = (len(rows), length)
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    owner = torch.zeros(shape, dtype=torch.long)  # which example a position belongs to; 0 is padding
    for b, row in enumerate(rows):
        start = 0
        for number, example in enumerate(row, start=1):
            size = len(example.tokens)
            tokens = torch.tensor(example.tokens)
            input_ids[b, start : start + size] = tokens
            position_ids[b, start : start + size] = torch.arange(size)
            owner[b, start : start + size] = number
            trained = torch.tensor(example.trained[1:])
            labels[b, start : start + size - 1] = torch.where(trained, tokens[1:], IGNORED)
            start += size
    return Batch(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_isolated_causal_mask(owner),
        labels=labels,
        tokens=int((owner > 0).sum()),
        trained_tokens=int((labels != IGNORED).sum()),
    )


def _isolated_causal_mask(owner: torch.Tensor) -> torch.Tensor:
    """[batch, 1, length, length]: position q sees k when k <= q and both belong to the same example."""
    length = owner.shape[1]
    same = owner[:, :, None] == owner[:, None, :]
    return (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
