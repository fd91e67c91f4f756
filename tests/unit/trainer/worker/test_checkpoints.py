"""A checkpoint is whole or it is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneloom_trainer.worker import checkpoints
from tuneloom_trainer.worker.checkpoint_records import RECORD_FILE, CheckpointRecord, leading_to, newest_whole

pytestmark = pytest.mark.worker
JOB = "job-1"


def fresh(seed: int) -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: torch.nn.Parameter(torch.randn(3, 2, generator=generator)) for name in ("a.weight", "b.weight", "unused")
    }
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def stepped(seed: int) -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
    parameters, optimizer = fresh(seed)
    (parameters["a.weight"].sum() + (parameters["b.weight"] ** 2).sum()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return parameters, optimizer


def save(directory: Path, step: int, **changes: Any) -> Path:
    parameters, optimizer = stepped(step)
    record = CheckpointRecord(**{"job": JOB, "step": step, "loss": 0.5, **changes})
    return checkpoints.save(
        directory, parameters=parameters, optimizer=optimizer, adapter_config={"r": 8}, record=record
    )


def test_what_was_saved_comes_back_and_trains_on_alike(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = newest_whole(tmp_path, job=JOB)
    assert found is not None
    assert (found.record.step, found.record.loss) == (7, 0.5)
    results = []
    restored = fresh(99)
    checkpoints.restore(found, *restored)
    for parameters, optimizer in (stepped(7), restored):
        optimizer.zero_grad()
        (parameters["b.weight"] ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        results.append(parameters)

    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


def test_nothing_on_disk_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, 7)

    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    assert not list(tmp_path.glob(".*"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


BREAK: dict[str, Callable[[Path], None]] = {
    "weights": lambda path: flip(path / checkpoints.WEIGHTS_FILE),
    "optimizer": lambda path: flip(path / checkpoints.OPTIMIZER_FILE),
    "adapter config": lambda path: flip(path / "adapter_config.json"),
    "torn weights": lambda path: (path / checkpoints.WEIGHTS_FILE).write_bytes(b"x"),
    "no weights": lambda path: (path / checkpoints.WEIGHTS_FILE).unlink(),
    "no record": lambda path: (path / RECORD_FILE).unlink(),
    "torn record": lambda path: (path / RECORD_FILE).write_text('{"step": 9, '),
    "binary record": lambda path: (path / RECORD_FILE).write_bytes(b"\xff\xfe\x00"),
    "other record": lambda path: (path / RECORD_FILE).write_text("[]"),
    "null record": lambda path: (path / RECORD_FILE).write_text("null"),
    "odd record": lambda path: (path / RECORD_FILE).write_text(json.dumps({"files": [1]})),
}


@pytest.mark.parametrize("damage", BREAK.values(), ids=BREAK)
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_older_one(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 9)
    damage(save(tmp_path, 10))

    found = newest_whole(tmp_path, job=JOB)

    assert found is not None
    assert found.record.step == 9


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_whole(tmp_path, job=JOB) is None
    flip(save(tmp_path, 1) / checkpoints.WEIGHTS_FILE)
    assert newest_whole(tmp_path, job=JOB) is None


def test_a_half_written_checkpoint_is_ignored_and_replaced(tmp_path: Path) -> None:
    save(tmp_path, 3)
    half = tmp_path / ".step-00000004.part"
    half.mkdir()
    (half / checkpoints.WEIGHTS_FILE).write_bytes(b"half")
    found = newest_whole(tmp_path, job=JOB)
    assert found is not None
    assert found.record.step == 3

    save(tmp_path, 4)

    found = newest_whole(tmp_path, job=JOB)
    assert found is not None
    assert found.record.step == 4
    assert not half.exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    flip(save(tmp_path, 5) / checkpoints.WEIGHTS_FILE)
    save(tmp_path, 5, loss=0.25)

    found = newest_whole(tmp_path, job=JOB)

    assert found is not None
    assert found.record.loss == 0.25


def test_the_newest_attempt_wins_over_more_steps_of_an_older_one(tmp_path: Path) -> None:
    """A host that comes back holds steps of its own that others have overtaken."""
    save(tmp_path, 30, lease_epoch=1)
    save(tmp_path, 20, lease_epoch=3)
    save(tmp_path, 40, lease_epoch=9, job="job-2")

    found = newest_whole(tmp_path, job=JOB)

    assert found is not None
    assert found.record.order == (3, 20)


@pytest.mark.parametrize(("after", "steps"), [((0, 0), [10, 20, 30, 50]), ((1, 20), [30, 50]), ((2, 20), [50])])
def test_the_way_to_the_newest_leaves_out_what_is_damaged_overtaken_or_registered(
    tmp_path: Path, after: tuple[int, int], steps: list[int]
) -> None:
    for step, epoch in ((10, 1), (20, 1), (30, 1), (40, 2), (50, 3), (60, 1)):
        save(tmp_path, step, lease_epoch=epoch)
    flip(tmp_path / "step-00000040" / checkpoints.WEIGHTS_FILE)
    newest = newest_whole(tmp_path, job=JOB)
    assert newest is not None

    assert [each.record.step for each in leading_to(newest, after=after)] == steps


def test_a_checkpoint_of_another_model_is_not_taken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = newest_whole(tmp_path, job=JOB)
    assert found is not None
    other = {"c.weight": torch.nn.Parameter(torch.zeros(3, 2))}

    with pytest.raises(KeyError, match=r"c\.weight"):
        checkpoints.restore(found, other, torch.optim.AdamW(other.values()))
