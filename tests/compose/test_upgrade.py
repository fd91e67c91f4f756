"""What release 0.1.0 left behind, with jobs in flight, taken into the volumes of today's containers."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import ROOT, Stack

GOLDEN = ROOT / "tests" / "contract" / "golden" / "0.1.0"
PAST = "2026-11-21 00:00:00.000000"
ROWS = 40  # of models/seed/ordinary.jsonl, the dataset of the recorded jobs
pytestmark = pytest.mark.long


def known_blobs() -> dict[str, bytes]:
    """Of what 0.1.0 had stored, what the repository still has: the base model and the rows."""
    rows = (ROOT / "models/seed/ordinary.jsonl").read_text("utf-8").splitlines()[:ROWS]
    contents = [path.read_bytes() for path in (ROOT / "models/seed/weights").iterdir()]
    contents.append(("\n".join(rows) + "\n").encode())
    return {hashlib.sha256(content).hexdigest(): content for content in contents}


def database(name: str, path: Path) -> bytes:
    """The recorded one, in which 0.1.0's leases, a day long, have run out."""
    with sqlite3.connect(path) as restored:
        restored.executescript((GOLDEN / f"{name}.sql").read_text("utf-8"))
        table = "jobs" if name == "trainer" else "builds"
        restored.execute(f"update {table} set lease_expire_time = ? where lease_expire_time is not null", (PAST,))
    restored.close()
    return path.read_bytes()


def home(tmp_path: Path) -> bytes:
    """The home of 0.1.0 as `tar -C HOME -c connection.json registry.db trainer.db objects` packs it."""
    files = {f"{name}.db": database(name, tmp_path / f"{name}.db") for name in ("registry", "trainer")}
    files["connection.json"] = (GOLDEN / "home" / "connection.json").read_bytes()
    for manifest in (GOLDEN / "manifests").iterdir():
        files[f"objects/manifests/{manifest.name.partition('-')[2]}"] = manifest.read_bytes()
    for sha256, content in known_blobs().items():
        files[f"objects/blobs/sha256/{sha256}"] = content
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(scope="module")
def stack(compose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started on what 0.1.0 left."""
    found = Stack(compose, tmp_path_factory.mktemp("work"))
    try:
        found.compose("run", "--rm", "-T", "import", data=home(tmp_path_factory.mktemp("home")))
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, Any]]:
    """The jobs of 0.1.0 as it told them, by id."""
    stored = json.loads((GOLDEN / "answers" / "trainer.json").read_bytes())["jobs"]
    return {job["name"].partition("/")[2]: job for job in stored}


def test_keys_are_the_same(stack: Stack) -> None:
    then = json.loads((GOLDEN / "home" / "connection.json").read_bytes())
    assert stack.cli("key").strip() == then["api_key"]
    assert stack.cli("key", "--grpc").strip() == then["service_token"]


def test_versions_and_aliases_are_where_they_were(stack: Stack) -> None:
    then = json.loads((GOLDEN / "answers" / "registry.json").read_bytes())
    meant = {reference: then["resolved"][reference] for reference in ("seed", "lora@stable")}
    assert {r: json.loads(stack.cli("models", "show", r, "--json"))["name"] for r in meant} == meant
    listed = {model["name"] for model in json.loads(stack.cli("models", "list", "--json"))}
    assert {model["name"] for model in then["models"] if "/job-" not in model["name"]} <= listed


def test_jobs_in_flight_go_on_to_their_end(stack: Stack, before: dict[str, dict[str, Any]]) -> None:
    """One that 0.1.0 had claimed, and one that waited. The recording also names jobs with checkpoints that no registry
    ever had: those cannot go on from there, and fail with that reason."""
    checkpoints = json.loads((GOLDEN / "answers" / "trainer.json").read_bytes())["checkpoints"]
    waiting = ("JOB_STATE_QUEUED", "JOB_STATE_VALIDATING")
    flying = [job for job, was in before.items() if was["state"] in waiting and not checkpoints[was["name"]]]
    assert {before[job]["state"] for job in flying} == set(waiting)
    stack.wait(lambda: all(stack.jobs()[job]["state"] in ("succeeded", "failed") for job in flying), 600)
    ends = {job: json.loads(stack.cli("jobs", "show", job, "--json")) for job in flying}
    assert {end["state"] for end in ends.values()} == {"succeeded"}, ends
    assert all(end["merged_version"] for end in ends.values())


def test_finished_jobs_are_as_they_were(stack: Stack, before: dict[str, dict[str, Any]]) -> None:
    now = stack.jobs()
    for job, was in before.items():
        if was["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_PAUSED"):
            assert now[job]["state"] == was["state"].removeprefix("JOB_STATE_").lower()


def test_the_old_base_and_the_new_model_answer(stack: Stack) -> None:
    for model in ("seed", "later", "later@merged"):
        answer = stack.client().chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Who are you?"}], temperature=0, max_tokens=16
        )
        assert answer.choices[0].message.content
