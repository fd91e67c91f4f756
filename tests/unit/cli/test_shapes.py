"""Every field that `--json` prints is documented, and what it prints is JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import TEMPLATE
from tuneloom.trainer.v1.jobs_pb2 import Checkpoint as WireCheckpoint
from tuneloom.trainer.v1.jobs_pb2 import TrainingJob
from tuneloom_cli import shapes
from tuneloom_client.jobs import Checkpoint, Job, Recipe, TrainingSpec
from tuneloom_client.versions import Dataset, Model, Version
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.names import VersionName
from tuneloom_data.contract import ContractReport

NOW = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)
MANIFEST = Manifest(kind=Kind.BASE, files=(FileEntry(path="a", size=1, sha256="0" * 64),), template=TEMPLATE)
VERSION = Version(
    VersionName("models", "helper", 3), MANIFEST.digest, None, MANIFEST.canonical().decode(), NOW, 1, ("default",)
)
JOB = TrainingJob(name="trainingJobs/job-1", spec=TrainingSpec(max_steps=2))
JOB.progress.total_steps = 5
SHAPES: dict[str, Any] = {
    "model": shapes.model(Model("models/helper", NOW, "", 3, {"b": 2, "a": 1})),
    "version": shapes.version_with_manifest(VERSION),
    "dataset": shapes.dataset(Dataset("datasets/faq", NOW, 1)),
    "job": shapes.job(Job.of(JOB)),
    "checkpoint": shapes.checkpoint(Checkpoint.of(WireCheckpoint(step=5))),
    "recipe": shapes.recipe(Recipe("qlora", "", TrainingSpec())),
    "report": shapes.report(ContractReport()),
}
DOCUMENT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("name", SHAPES)
def test_every_field_is_documented(name: str) -> None:
    section = re.search(rf"(?ms)^### {name}$(.*?)(?=^### |\Z)", DOCUMENT)
    assert section is not None
    documented = set(re.findall(r"`([a-z_]+)`", section[1]))
    shape = SHAPES[name]
    assert set(shape) - documented == set()
    assert set(shape.get("progress") or {}) - documented == set()


def test_shapes_are_json() -> None:
    assert json.loads(json.dumps(SHAPES)) == SHAPES


def test_times_have_one_form_and_what_is_not_yet_is_null() -> None:
    assert SHAPES["model"]["create_time"] == "2026-11-21T10:00:00.123Z"
    assert SHAPES["job"]["end_time"] is None
    assert SHAPES["version"]["kind"] is None
    assert list(SHAPES["model"]["aliases"]) == ["a", "b"]
