"""The data contract at token level: reads, renders, packs and reports before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloom_data.contract import check_file, fingerprint
from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import read_conversations
from tuneloom_trainer.training_events import DataReport
from tuneloom_trainer.worker.packing import pack
from tuneloom_trainer.worker.protocol import WorkerFailed
from tuneloom_trainer.worker.rendering import Example, render

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
    """Sequences of whole examples, in an order that is a function of (seed, epoch) alone."""

    def __init__(self, examples: Sequence[Example], *, max_length: int, packing: bool, seed: int) -> None:
        self._examples = examples
        self._seed = seed
        lengths = [len(example.tokens) for example in examples]
        self._sequences = pack(lengths, max_length) if packing else [[i] for i in range(len(examples))]

    def __len__(self) -> int:
        return len(self._sequences)

    def batches(self, *, first_batch: int, batch_size: int) -> Iterator[Batch]:
        """Endless batches from a position on; every epoch visits every sequence once."""
        per_epoch = self.batches_per_epoch(batch_size)
        index = first_batch
        while True:
            epoch, offset = divmod(index, per_epoch)
            generator = torch.Generator().manual_seed(derived_seed(self._seed, epoch))
            order = torch.randperm(len(self), generator=generator).tolist()
            for start in range(offset * batch_size, len(self), batch_size):
                yield self._collate([self._sequences[i] for i in order[start : start + batch_size]])
                index += 1

    def batches_per_epoch(self, batch_size: int) -> int:
        return -(-len(self) // batch_size)

    def _collate(self, sequences: list[list[int]]) -> Batch:
        rows = [[self._examples[index] for index in sequence] for sequence in sequences]
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


def load_dataset(
    path: Path,
    tokenizer: Any,
    *,
    stop_tokens: Sequence[str],
    max_length: int,
    packing: bool,
    seed: int,
) -> tuple[PackedDataset, DataReport]:
    """Reads a file; raises WorkerFailed naming the rows when it cannot be trained on."""
    contract = check_file(path)
    if not contract.passed:
        raise WorkerFailed("DATA_CONTRACT", f"{contract.summary()}; mend them and upload the file again")
    examples, seen = [], set()
    for conversation in read_conversations(path):
        if not isinstance(conversation, Conversation):
            continue
        seen.add(fingerprint(conversation))
        examples.append(render(conversation, tokenizer, stop_tokens=stop_tokens, max_length=max_length))
    _require_trainable(examples, max_length)
    dataset = PackedDataset(examples, max_length=max_length, packing=packing, seed=seed)
    return dataset, DataReport(
        rows=len(examples),
        tokens=sum(len(example.tokens) for example in examples),
        trained_tokens=sum(sum(example.trained) for example in examples),
        truncated_rows=sum(example.truncated for example in examples),
        duplicate_rows=len(examples) - len(seen),
        sequences=len(dataset),
        stop_token_trained=all(example.stop_token_trained for example in examples),
    )


def _require_trainable(examples: Sequence[Example], max_length: int) -> None:
    untrained = [example.row for example in examples if not any(example.trained[1:])]
    if untrained:
        raise WorkerFailed(
            "DATA_CONTRACT",
            f"{len(untrained)} rows have no answer left within max_length={max_length} tokens, the first is row "
            f"{untrained[0]}; raise spec.max_length or shorten them",
        )
    if not any(example.stops for example in examples):
        raise WorkerFailed(
            "STOP_TOKEN",
            f"every answer is cut before its stop token at max_length={max_length}, so the model would never learn to "
            "stop; raise spec.max_length or shorten the rows",
        )
    unstopped = [example.row for example in examples if not example.stop_token_trained]
    if unstopped:
        raise WorkerFailed(
            "STOP_TOKEN",
            f"the chat template ends the answer of row {unstopped[0]} ({len(unstopped)} rows in all) without a stop "
            "token, so the model would never learn to stop; use a base whose template closes assistant turns",
        )


def derived_seed(seed: int, counter: int) -> int:
    """A seed for one step or epoch, within the 63 bits torch takes."""
    return (seed * 1_000_003 + counter) % (1 << 63)


def _isolated_causal_mask(owner: torch.Tensor) -> torch.Tensor:
    """[batch, 1, length, length]: position q sees k when k <= q and both belong to the same example."""
    length = owner.shape[1]
    same = owner[:, :, None] == owner[:, None, :]
    return (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
