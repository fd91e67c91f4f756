"""How many steps there are and how fast each learns."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloom_trainer.specs import TrainingSpec, load_recipes, resolve
from tuneloom_trainer.worker.schedule import Schedule


def spec(**changes: Any) -> TrainingSpec:
    return resolve(load_recipes(), "full", changes)


@pytest.mark.parametrize(
    ("changes", "sequences", "steps"),
    [
        ({"num_epochs": 3, "batch_size": 2}, 5, 9),
        ({"num_epochs": 0.5, "batch_size": 1}, 5, 3),
        ({"num_epochs": 1, "batch_size": 1, "gradient_accumulation_steps": 8}, 3, 1),
        ({"num_epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 2}, 5, 3),
        ({"max_steps": 7, "num_epochs": 100}, 5, 7),
    ],
)
def test_steps_are_counted_over_epochs(changes: dict[str, Any], sequences: int, steps: int) -> None:
    assert Schedule(spec(**changes), sequences).total_steps == steps


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_to_its_peak_and_never_reaches_zero(scheduler: str) -> None:
    schedule = Schedule(spec(lr_scheduler=scheduler, warmup_ratio=0.2, max_steps=20), 5)
    rates = [schedule.factor(step) for step in range(1, 21)]

    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)
    assert (rates[-1] == 1) == (scheduler == "constant")
    assert Schedule(spec(lr_scheduler=scheduler, warmup_ratio=1, max_steps=1), 5).factor(1) == 1


def test_checkpoints_are_due_every_so_often_and_at_the_end() -> None:
    every, never = (Schedule(spec(max_steps=7, save_steps=save), 5) for save in (3, 0))

    assert [step for step in range(1, 8) if every.saves(step)] == [3, 6, 7]
    assert [step for step in range(1, 8) if never.saves(step)] == [7]
