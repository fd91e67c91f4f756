"""Training a tiny model: what it leaves behind, and that no death changes what it learns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.disks import small_disk
from tuneloom_common.disks import EXIT_DISK_FULL
from tuneloom_trainer.specs import load_recipes, resolve
from tuneloom_trainer.worker.checkpoint_records import newest_whole
from tuneloom_trainer.worker.loop import train
from tuneloom_trainer.worker.protocol import (
    CHECKPOINTS_DIR,
    EXIT_DONE,
    EXIT_STOPPED,
    EventLog,
    WorkerSpec,
    events_file,
)

pytestmark = pytest.mark.worker

STEPS = 6
ROWS = [
    [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "word " * (n % 4 + 1)}]
    for n in range(10)
]
LORA = {"r": 4, "dropout": 0.3}  # dropout, so that its generator is part of what must come back
NOISE = {"neftune_noise_alpha": 5.0}
METHODS: dict[str, dict[str, Any]] = {
    "nf4": {"method": "lora", "quantization": "nf4", "lora": LORA},
    "lora": {"method": "lora", "quantization": "none", "lora": LORA},
    "full": {"method": "full", "quantization": "none"},
    "noisy": {"method": "lora", "quantization": "none", "lora": LORA, **NOISE},
}


Prepare = Callable[..., WorkerSpec]


@pytest.fixture
def prepare(tmp_path: Path, base_dir: Path) -> Prepare:
    """Writes a run directory's spec. Keywords override the recipe, or base and rows."""

    def prepare(run: str, *, base: Path = base_dir, rows: Any = ROWS, **options: Any) -> WorkerSpec:
        tiny.save_rows(tmp_path / "rows.jsonl", rows)
        defaults = {"max_steps": STEPS, "save_steps": 3, "logging_steps": 1, "max_length": 64, "learning_rate": 0.01}
        training = resolve(load_recipes(), "qlora", {**METHODS["nf4"], **defaults, **options})
        spec = WorkerSpec(
            job="job-1", base_dir=base, dataset=tmp_path / "rows.jsonl", training=training, device="cpu", num_threads=1
        )
        spec.write(tmp_path / run)
        return spec

    return prepare


class Died(Exception):
    """Stands for SIGKILL."""


def run(spec: WorkerSpec, run_dir: Path, *, stop_at: int = 0, die_at: int = 0) -> int:
    """Trains in this process; asked to stop, or dead, after so many steps of this run."""
    done = 0

    def should_stop() -> bool:
        nonlocal done
        done += 1
        if done == die_at:
            raise Died
        return done == stop_at

    events = EventLog(run_dir / events_file(0))
    try:
        return train(spec, run_dir, events, should_stop)
    finally:
        events.close()


def events_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / events_file(0)).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event for event in events if event["type"] == kind]


def losses(run_dir: Path) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in events_of(run_dir, "progress")}


def weights(run_dir: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(run_dir / CHECKPOINTS_DIR / f"step-{step:08d}" / "weights.safetensors")


def assert_same_training(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    assert weights(one).keys() == weights(other).keys()
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_killed_and_straight_runs_learn_the_same(prepare: Prepare, tmp_path: Path, method: str) -> None:
    straight, stopped, killed = (tmp_path / name for name in ("straight", "stopped", "killed"))
    specs = {path: prepare(path.name, **METHODS[method]) for path in (straight, stopped, killed)}

    assert run(specs[straight], straight) == EXIT_DONE
    assert run(specs[stopped], stopped, stop_at=2) == EXIT_STOPPED
    assert run(specs[stopped], stopped) == EXIT_DONE
    with pytest.raises(Died):
        run(specs[killed], killed, die_at=5)
    assert run(specs[killed], killed) == EXIT_DONE

    assert_same_training(straight, stopped)
    assert_same_training(straight, killed)
    assert events_of(killed, "note")[-1]["text"] == "resumed from the checkpoint at step 3"
    assert events_of(stopped, "checkpoint")[0]["step"] == 2
    first = weights(straight, 3)
    assert any(not torch.equal(value, first[name]) for name, value in weights(straight).items())


def test_training_learns(prepare: Prepare, tmp_path: Path) -> None:
    spec = prepare("run", **METHODS["full"], max_steps=30, save_steps=0, lr_scheduler="constant")

    assert run(spec, tmp_path / "run") == EXIT_DONE

    seen = losses(tmp_path / "run")
    assert seen[30] < 0.6 * seen[1]


def test_a_damaged_newest_checkpoint_costs_steps_not_the_job(prepare: Prepare, tmp_path: Path) -> None:
    straight, damaged = tmp_path / "straight", tmp_path / "damaged"
    assert run(prepare("straight", save_steps=2), straight) == EXIT_DONE
    spec = prepare("damaged", save_steps=2)
    with pytest.raises(Died):
        run(spec, damaged, die_at=5)
    newest = damaged / CHECKPOINTS_DIR / "step-00000004" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])

    assert run(spec, damaged) == EXIT_DONE

    assert events_of(damaged, "note")[-1]["text"] == "resumed from the checkpoint at step 2"
    assert_same_training(straight, damaged)


def test_a_last_checkpoint_that_was_saved_but_not_told_is_told_by_the_next_run(
    prepare: Prepare, tmp_path: Path
) -> None:
    spec, run_dir = prepare("run"), tmp_path / "run"
    assert run(spec, run_dir) == EXIT_DONE
    log = run_dir / events_file(0)
    lines = log.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if f'"checkpoint", "step": {STEPS}' in line)
    log.write_text("".join(lines[:cut]))

    assert run(spec.model_copy(update={"registered_step": 3}), run_dir) == EXIT_DONE

    assert [event["step"] for event in events_of(run_dir, "checkpoint")] == [3, STEPS]
    assert len(events_of(run_dir, "finished")) == 1


@pytest.mark.parametrize(("registered", "told"), [(0, [3]), (3, [])])
def test_what_an_attempt_saved_and_nobody_heard_of_is_told_by_the_next(
    prepare: Prepare, tmp_path: Path, registered: int, told: list[int]
) -> None:
    spec, run_dir = prepare("run", **METHODS["full"]), tmp_path / "run"
    with pytest.raises(Died):
        run(spec, run_dir, die_at=5)
    (run_dir / events_file(0)).unlink()  # the next attempt has a log of its own

    status = run(spec.model_copy(update={"lease_epoch": 2, "registered_step": registered}), run_dir)

    assert status == EXIT_DONE
    steps = [event["step"] for event in events_of(run_dir, "checkpoint")]
    assert steps == [*told, STEPS]
    found = newest_whole(run_dir / CHECKPOINTS_DIR, job="job-1")
    assert found is not None
    assert (found.record.order, found.record.finished) == ((2, STEPS), True)


def test_every_checkpoint_that_was_saved_and_not_registered_is_told_by_the_next(
    prepare: Prepare, tmp_path: Path
) -> None:
    spec, run_dir = prepare("run", **METHODS["full"], save_steps=1), tmp_path / "run"
    with pytest.raises(Died):
        run(spec, run_dir, die_at=5)
    (run_dir / events_file(0)).unlink()

    run(spec.model_copy(update={"lease_epoch": 2, "registered_step": 1}), run_dir)

    assert [event["step"] for event in events_of(run_dir, "checkpoint")] == [2, 3, 4, 5, 6]


def test_a_worker_without_space_leaves_with_a_status_of_its_own(prepare: Prepare, tmp_path: Path) -> None:
    spec = prepare("run", **METHODS["full"])
    with small_disk(tmp_path / "disk", kilobytes=64) as run_dir:
        spec.write(run_dir)
        worker = [sys.executable, "-m", "tuneloom_trainer.worker", str(run_dir)]
        ended = subprocess.run(worker, capture_output=True, text=True, check=False)
        steps = [event["step"] for event in events_of(run_dir, "progress")]

    assert ended.returncode == EXIT_DISK_FULL, ended.stderr
    assert "no space left: " in ended.stderr
    assert steps == [1, 2, 3]  # the first save


@pytest.mark.parametrize("method", ["nf4", "full"])
def test_sample_chats_answer_and_change_nothing(prepare: Prepare, tmp_path: Path, method: str) -> None:
    prompts = ("hi", "who are you?")
    quiet, talking = tmp_path / "quiet", tmp_path / "talking"

    assert run(prepare("quiet", **METHODS[method]), quiet) == EXIT_DONE
    assert run(prepare("talking", **METHODS[method], sample_prompts=prompts), talking) == EXIT_DONE

    assert_same_training(quiet, talking)
    chats = [(event["step"], event["prompt"]) for event in events_of(talking, "sample_chat")]
    assert chats == [(step, prompt) for step in (3, 6) for prompt in prompts]


def test_sample_chats_have_a_rhythm_of_their_own_and_a_system_prompt(prepare: Prepare, tmp_path: Path) -> None:
    options = {"sample_prompts": ("hi",), "sample_steps": 4, "save_steps": 3}
    plain, told = tmp_path / "plain", tmp_path / "told"

    assert run(prepare("plain", **options), plain) == EXIT_DONE
    assert run(prepare("told", **options, sample_system_prompt="Be a pirate."), told) == EXIT_DONE

    for path in (plain, told):
        assert [event["step"] for event in events_of(path, "checkpoint")] == [3, 6]
        assert [event["step"] for event in events_of(path, "sample_chat")] == [4, 6]
    assert_same_training(plain, told)


def test_noise_changes_what_is_learnt(prepare: Prepare, tmp_path: Path) -> None:
    assert run(prepare("quiet", **METHODS["full"]), tmp_path / "quiet") == EXIT_DONE
    assert run(prepare("noisy", **METHODS["full"], **NOISE), tmp_path / "noisy") == EXIT_DONE

    assert losses(tmp_path / "quiet") != losses(tmp_path / "noisy")


def test_rows_that_are_left_out_are_told(prepare: Prepare, tmp_path: Path) -> None:
    long = [{"role": "user", "content": "x" * 80}, {"role": "assistant", "content": "a"}]
    assert run(prepare("run", rows=[*ROWS * 4, long]), tmp_path / "run") == EXIT_DONE

    assert events_of(tmp_path / "run", "data_report")[0]["unusable_rows"] == 1
    assert events_of(tmp_path / "run", "note")[0]["text"].startswith("row 41 left out: no answer remains")


def test_nothing_on_disk_is_pickled(prepare: Prepare, tmp_path: Path) -> None:
    assert run(prepare("run"), tmp_path / "run") == EXIT_DONE

    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors"}
    for path in files:
        start = path.read_bytes()[:4]
        assert not start.startswith((b"PK", b"\x80")), path
    record = json.loads((tmp_path / "run" / CHECKPOINTS_DIR / "step-00000006" / "checkpoint.json").read_bytes())
    assert record["template"]["stop_tokens"] == ["<|im_end|>"]
    assert "adapter_config.json" in record["files"]


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_the_contract_allows_trains(prepare: Prepare, tmp_path: Path, seed: int) -> None:
    assert run(prepare("run", max_steps=1, seed=seed, packing=False), tmp_path / "run") == EXIT_DONE


def test_epochs_are_counted_as_passes_over_the_data(prepare: Prepare, tmp_path: Path) -> None:
    spec = prepare("run", max_steps=2, packing=True, max_length=512, batch_size=1, gradient_accumulation_steps=4)

    assert run(spec, tmp_path / "run") == EXIT_DONE

    assert events_of(tmp_path / "run", "data_report")[0]["sequences"] == 1
    assert [event["epoch"] for event in events_of(tmp_path / "run", "progress")] == [4, 8]
