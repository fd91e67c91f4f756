"""What workers and jobs of earlier releases left on disk is read by today's runner, worker and builds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import RELEASES
from tuneloom_trainer.events import EventTail
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.training_events import Note
from tuneloom_trainer.worker.checkpoint_records import directory_name, newest_whole
from tuneloom_trainer.worker.protocol import EventLog, WorkerSpec

RUNS = [path for release in RELEASES for path in sorted((release / "worker").iterdir())]
SPECS = [path for release in RELEASES for path in sorted((release / "specs").glob("*.json"))]
EACH_RUN = pytest.mark.parametrize("run", RUNS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
EACH_SPEC = pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
EVENT_KINDS = {"data_report", "note", "training", "progress", "checkpoint", "sample_chat", "finished", "failed"}


def differs(value: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """The stored fields that a typed value lacks or changes, by the names they were stored under."""
    found = {}
    for name, then in stored.items():
        now = getattr(value, name, "missing")
        same = (
            not differs(now, then) if isinstance(then, dict) else (list(now) if isinstance(then, list) else now) == then
        )
        if not same:
            found[name] = now
    return found


@EACH_SPEC
def test_a_stored_spec_loads_with_every_option_it_had(path: Path) -> None:
    stored = json.loads(path.read_bytes())
    spec = TrainingSpec.stored(stored)
    spec.require_readable()
    assert differs(spec, stored) == {}


@EACH_SPEC
@pytest.mark.parametrize("change", ["an option more", "an option less", "a part more", "an adapter option less"])
def test_a_spec_of_another_release_loads(path: Path, change: str) -> None:
    stored = json.loads(path.read_bytes())
    match change:
        case "an option more":
            stored["option_of_tomorrow"] = 5
        case "an option less":
            del stored["logging_steps"]
        case "a part more":
            stored["parallel"] = {"tensor": 2}
        case "an adapter option less":
            del stored["lora"]["use_rslora"]
    spec = TrainingSpec.stored(stored)
    spec.require_readable()
    assert differs(spec, {name: value for name, value in stored.items() if hasattr(spec, name)}) == {}


@EACH_RUN
def test_a_worker_reads_the_spec_file_it_was_given(run: Path) -> None:
    stored = json.loads((run / "spec.json").read_bytes())
    spec = WorkerSpec.read(run)
    assert (spec.job, str(spec.base_dir), str(spec.dataset)) == (stored["job"], stored["base_dir"], stored["dataset"])
    assert (spec.device, spec.num_threads) == (stored["device"], stored["num_threads"])
    assert differs(spec.training, stored["training"]) == {}


@EACH_RUN
def test_an_event_log_is_followed_to_its_end(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    for line, found in zip(lines, EventTail(run / "events.jsonl", after=0).read(), strict=True):
        kind = line.pop("type")
        assert found.event is not None
        assert (found.sequence, found.event.kind) == (line.pop("seq"), kind)
        assert differs(found.event, {name: value for name, value in line.items() if name != "time"}) == {}


def test_an_event_of_a_newer_release_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    known = {"seq": 2, "time": 2.0, "type": "note", "text": "hello", "language": "en"}
    log.write_text(
        json.dumps({"seq": 1, "time": 1.0, "type": "evaluation", "score": 5}) + "\n" + json.dumps(known) + "\n"
    )
    newer, note = EventTail(log, after=0).read()
    assert (newer.sequence, newer.event) == (1, None)
    assert isinstance(note.event, Note)
    assert note.event.text == "hello"


@EACH_RUN
def test_a_log_goes_on_where_it_ended(run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(run / "events.jsonl", tmp_path))
    last = json.loads(path.read_text("utf-8").splitlines()[-1])["seq"]
    log = EventLog(path)
    log.emit(Note(text="upgraded"))
    log.close()
    [added] = EventTail(path, after=last).read()
    assert added.sequence == last + 1


def test_every_kind_of_event_was_kept() -> None:
    kinds = {
        json.loads(line)["type"] for run in RUNS for line in (run / "events.jsonl").read_text("utf-8").splitlines()
    }
    assert kinds >= EVENT_KINDS


@pytest.mark.parametrize("run", [run for run in RUNS if (run / "checkpoint.json").exists()], ids=lambda run: run.name)
def test_a_checkpoint_is_found_whole(run: Path, tmp_path: Path) -> None:
    """The files it names are stood in for, their hashes with them."""
    stored = json.loads((run / "checkpoint.json").read_bytes())
    directory = tmp_path / directory_name(stored["step"])
    directory.mkdir()
    for name in stored["files"]:
        (directory / name).write_text(name)
        stored["files"][name] = hashlib.sha256(name.encode()).hexdigest()
    (directory / "checkpoint.json").write_text(json.dumps(stored))
    found = newest_whole(tmp_path, job=stored["job"])
    assert found is not None
    assert found.path == directory
    template = stored.pop("template")
    assert differs(found.record, {**stored, "files": {}}) == {}
    assert found.record.files == stored["files"]
    assert found.record.template is not None
    assert found.record.template.model_dump(mode="json") == template
