"""Several ranks do together what one does alone. Ranks are threads here, with a strategy of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneloom_data.templates import FrozenTemplate
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import EventBody
from tuneloom_trainer.worker.checkpoint_records import newest_whole
from tuneloom_trainer.worker.checkpoints import Checkpoints
from tuneloom_trainer.worker.data.batches import PackedDataset
from tuneloom_trainer.worker.data.order import Share
from tuneloom_trainer.worker.data.rendering import Example
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.learner import Learner
from tuneloom_trainer.worker.objectives.sft import SupervisedFineTuning
from tuneloom_trainer.worker.protocol import CheckpointSaved, WorkerSpec

pytestmark = pytest.mark.worker

TRAINING = TrainingSpec(tuning="full", max_length=64, packing=False, batch_size=3, gradient_accumulation_steps=2)
STEPS = 5


class Meeting:
    """What threads that play ranks share."""

    def __init__(self, world_size: int) -> None:
        self.barrier = threading.Barrier(world_size, timeout=30)
        self.offers: list[Any] = [None] * world_size


class ThreadRank:
    """Sums by meeting twice: once to offer, once before the next offer."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.world_size = rank, len(meeting.offers)
        self.hardware = Hardware(torch.device("cpu"), torch.float32)
        self._meeting = meeting

    def total(self, value: float) -> float:
        total: float = sum(self._gather(value))
        return total

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        kept = list(parameters)
        offered = self._gather([None if value.grad is None else value.grad.clone() for value in kept])
        for parameter, gradients in zip(kept, zip(*offered, strict=True), strict=True):
            there = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = torch.stack(there).sum(dim=0) if there else None

    def barrier(self) -> None:
        self._meeting.barrier.wait()

    def _gather(self, value: Any) -> list[Any]:
        self._meeting.offers[self.rank] = value
        self.barrier()
        offers = list(self._meeting.offers)
        self.barrier()
        return offers


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    lengths = [5 + n % 4 for n in range(11)]
    rows = [torch.randint(0, 250, (length,), generator=generator).tolist() for length in lengths]
    return [
        Example(n, tokens, [False, False] + [True] * (len(tokens) - 2), False, True) for n, tokens in enumerate(rows)
    ]


def ranks(base_dir: Path, world_size: int, work: Callable[[Learner, ThreadRank], Any]) -> list[Any]:
    """Runs every rank's work at once; models are loaded one after the other."""
    meeting = Meeting(world_size)
    strategies = [ThreadRank(rank, meeting) for rank in range(world_size)]
    learners = [
        Learner.load(base_dir, TRAINING, objective=SupervisedFineTuning(), strategy=strategy) for strategy in strategies
    ]
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(work, learners, strategies))


def learn(learner: Learner, strategy: ThreadRank) -> tuple[list[Any], dict[str, torch.Tensor]]:
    dataset = PackedDataset(examples(), max_length=64, packing=False, seed=1)
    shares = dataset.steps(batch_size=3, accumulation=2, share=Share(strategy.rank, strategy.world_size))
    results = [
        learner.step(number, batches, learning_rate=1e-3)
        for number, batches in enumerate(islice(shares, STEPS), start=1)
    ]
    return results, {name: value.detach() for name, value in learner.parameters.items()}


@pytest.mark.parametrize("world_size", [2, 3])
def test_many_ranks_learn_what_one_learns(base_dir: Path, world_size: int) -> None:
    ((alone, expected),) = ranks(base_dir, 1, learn)

    together = ranks(base_dir, world_size, learn)

    for results, weights in together:
        assert [(result.tokens, result.trained_tokens) for result in results] == [
            (result.tokens, result.trained_tokens) for result in alone
        ]
        assert [result.loss for result in results] == pytest.approx([result.loss for result in alone], rel=1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-4, msg=name)


def test_rank_0_writes_and_nobody_goes_on_before_it_has(base_dir: Path, tmp_path: Path) -> None:
    told: list[EventBody] = []
    (tmp_path / "checkpoints").mkdir()
    spec = WorkerSpec(job="job-1", base_dir=base_dir, dataset=tmp_path, training=TRAINING, lease_epoch=4)

    class Log:
        def emit(self, event: EventBody) -> None:
            told.append(event)

    def save(learner: Learner, strategy: ThreadRank) -> bool:
        template = FrozenTemplate("0" * 64, "1" * 64, ("x",))
        checkpoints = Checkpoints(tmp_path, spec, Log(), strategy, template=template, total_steps=9)
        checkpoints.save(learner, step=2, loss=0.5)
        return newest_whole(tmp_path / "checkpoints", job="job-1") is not None

    assert ranks(base_dir, 3, save) == [True, True, True]
    assert told == [CheckpointSaved(step=2, loss=0.5, path="checkpoints/step-00000002")]
    found = newest_whole(tmp_path / "checkpoints", job="job-1")
    assert found is not None
    assert (found.record.order, found.record.finished) == ((4, 2), False)
