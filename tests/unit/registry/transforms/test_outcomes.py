"""The child's boundary: what it leaves, how it ends, and what the service makes of both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.transforms.conftest import write_adapter, write_base
from tests.unit.registry.transforms.test_convert import write_checkpoint, write_full
from tuneloom_common.manifests import Lora
from tuneloom_registry.transforms.outcomes import Done, Full, Lost, Refused, read_outcome
from tuneloom_registry.transforms.specs import (
    TransformRefusal,
    TransformResult,
    TransformSpec,
    read_answer,
    read_spec,
)
from tuneloom_registry.transforms.workspace import Workspace

SPEC = TransformSpec(action="convert", base_name="qwen--0123456789ab")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.directory.mkdir()
    SPEC.write(workspace.spec)
    return workspace


def run(workspace: Workspace, spec: TransformSpec = SPEC, *, environment: Mapping[str, str] | None = None) -> int:
    """The child, as the service starts it."""
    spec.write(workspace.spec)
    command = [sys.executable, "-m", "tuneloom_registry.transforms", str(workspace.directory)]
    with workspace.log.open("wb") as log:
        done = subprocess.run(command, check=False, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    return done.returncode


def fill(workspace: Workspace, source: Path) -> None:
    workspace.source.symlink_to(source)
    workspace.base.symlink_to(write_base(workspace.directory.with_name("base")))


def test_a_spec_and_its_answers_come_back_as_they_went(workspace: Workspace) -> None:
    assert read_spec(workspace.spec) == SPEC
    lora = Lora(r=4, alpha=8, targets=("q_proj",))
    for answer in (TransformResult(kind="adapter", lora=lora), TransformRefusal(reason="X", error="y")):
        answer.write(workspace.result)
        assert read_answer(workspace.result, TransformResult) == answer
    assert not list(workspace.directory.glob("*.part"))


def test_readers_know_older_and_newer_writers(workspace: Workspace) -> None:
    workspace.spec.write_text(json.dumps({"action": "merge", "base_name": "b", "invented_later": {"x": 1}}))
    spec = read_spec(workspace.spec)
    assert (spec.action, spec.min_greedy_agreement, spec.time_limit_seconds) == ("merge", 0.99, None)
    workspace.result.write_text(json.dumps({"ok": True, "kind": "adapter", "hashes": []}))
    assert read_answer(workspace.result, TransformResult) == TransformResult(kind="adapter")


def test_a_good_child_is_done(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, write_checkpoint(tmp_path / "checkpoint"))
    outcome = read_outcome(workspace.directory, run(workspace))
    assert isinstance(outcome, Done)
    assert outcome.result.lora == Lora(r=4, alpha=8, targets=("down_proj", "q_proj"))


def test_bad_inputs_are_refused_for_good(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, write_full(tmp_path / "checkpoint", {"other.weight": (3,)}))
    outcome = read_outcome(workspace.directory, run(workspace))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "CHECKPOINT_INVALID"
    (workspace.directory.with_name("base") / "model.safetensors").write_bytes(b"nonsense")
    outcome = read_outcome(workspace.directory, run(workspace))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "INVALID_INPUT"


@pytest.mark.parametrize("status", [-9, -15, 1, 0])
def test_a_child_without_an_answer_is_lost(workspace: Workspace, status: int) -> None:
    workspace.log.write_text("the last words\n")
    outcome = read_outcome(workspace.directory, status)
    assert outcome == Lost(status, "the last words")
    assert f"status {status}" in outcome.message


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        {},
        [],
        {"fine": True},
        {"ok": True},
        {"ok": True, "kind": "nonsense"},
        {"ok": True, "kind": "adapter", "lora": {"r": "x"}},
        {"ok": True, "kind": "adapter"},  # and no files
        {"ok": False},
    ],
    ids=str,
)
def test_an_answer_that_is_none_is_lost(workspace: Workspace, answer: Any) -> None:
    workspace.result.write_text(json.dumps(answer))
    outcome = read_outcome(workspace.directory, 0)
    assert isinstance(outcome, Lost)
    assert "no usable result" in outcome.tail


def test_an_answer_outlives_its_child(workspace: Workspace) -> None:
    """Killed after the answer was written: the work is complete."""
    workspace.out.mkdir()
    TransformResult(kind="adapter").write(workspace.result)
    assert isinstance(read_outcome(workspace.directory, -9), Done)


def test_a_child_ends_itself_in_time(workspace: Workspace, tmp_path: Path) -> None:
    """Within a pattern that never ends and that has more time of its own."""
    fill(workspace, write_checkpoint(tmp_path / "checkpoint"))
    config = json.loads((tmp_path / "checkpoint/adapter_config.json").read_text())
    config["alpha_pattern"] = {"(.|.|.)*!": 4}
    (tmp_path / "checkpoint/adapter_config.json").write_text(json.dumps(config))
    started = time.monotonic()
    status = run(workspace, SPEC.model_copy(update={"time_limit_seconds": 1}))
    assert time.monotonic() - started < 8
    assert status == -signal.SIGALRM
    outcome = read_outcome(workspace.directory, status)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "DEADLINE_EXCEEDED"
    assert "BUILD_TIMEOUT_SECONDS" in outcome.message


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="no memory limit beside a GPU")
def test_a_child_bounds_its_own_memory(workspace: Workspace, tmp_path: Path) -> None:
    """A checkpoint whose one tensor is larger than the limit allows, as a hole in a file."""
    from tuneloom_registry.weights.headers import TensorSlice, encode_header

    fill(workspace, write_checkpoint(tmp_path / "checkpoint"))
    path = tmp_path / "checkpoint/weights.safetensors"
    size = 2 << 30
    with path.open("wb") as file:
        file.write(encode_header([TensorSlice("x", path, "F32", (size // 4,), 0, size)]))
        file.truncate(file.tell() + size)
    limited = SPEC.model_copy(update={"memory_limit_bytes": 1 << 30})
    outcome = read_outcome(workspace.directory, run(workspace, limited, environment={"OPENBLAS_NUM_THREADS": "1"}))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "OUT_OF_MEMORY"
    assert str(1 << 30) in outcome.message


@pytest.mark.parametrize("write", [write_checkpoint, write_full])
def test_repeated_after_a_kill_it_starts_clean_and_gives_the_same_bytes(
    workspace: Workspace, tmp_path: Path, write: Any
) -> None:
    fill(workspace, write(tmp_path / "checkpoint"))
    assert run(workspace) == 0
    first = {path.name: path.read_bytes() for path in workspace.out.iterdir()}
    workspace.result.unlink()
    (workspace.out / "left-behind").write_bytes(b"half")
    name = min(first)
    (workspace.out / name).write_bytes(first[name][:10])
    assert isinstance(read_outcome(workspace.directory, -9), Lost)
    assert run(workspace) == 0
    assert {path.name: path.read_bytes() for path in workspace.out.iterdir()} == first


def test_a_stale_answer_is_never_taken_for_a_new_one(workspace: Workspace, tmp_path: Path) -> None:
    workspace.out.mkdir()
    TransformResult(kind="adapter").write(workspace.result)
    fill(workspace, write_checkpoint(tmp_path / "checkpoint"))
    (tmp_path / "checkpoint/adapter_config.json").write_bytes(b"nonsense")
    assert isinstance(read_outcome(workspace.directory, run(workspace)), Refused)


def test_progress_is_cut_and_never_fails(workspace: Workspace) -> None:
    assert workspace.progress() == ""
    (workspace.directory / "progress").write_bytes(bytes([255, 254]) * 1000)
    assert len(workspace.progress()) == 200


def test_what_is_no_checkpoint_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, write_adapter(tmp_path / "adapter"))
    outcome = read_outcome(workspace.directory, run(workspace))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "CHECKPOINT_INVALID"


def test_a_full_disk_is_told_apart_from_a_death(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, write_full(tmp_path / "checkpoint"))
    (workspace.directory / "progress").symlink_to("/dev/full")
    outcome = read_outcome(workspace.directory, run(workspace))
    assert outcome == Full(f"no space left in {workspace.directory}; free some")
