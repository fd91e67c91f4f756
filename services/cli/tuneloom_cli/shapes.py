"""What `--json` prints, as docs/cli.md has it. Fields are only ever added."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tuneloom_cli.options import spec_options
from tuneloom_client.jobs import Checkpoint, Job, Recipe
from tuneloom_client.versions import Dataset, Model, Version
from tuneloom_data.contract import ContractReport

Shape = dict[str, Any]


def dataset(value: Dataset) -> Shape:
    return {
        "id": value.id,
        "name": value.name,
        "latest_version": value.latest_version,
        "create_time": time(value.create_time),
    }


def model(value: Model) -> Shape:
    return {
        "id": value.id,
        "name": value.name,
        "latest_version": value.latest_version,
        "aliases": dict(sorted(value.aliases.items())),
        "training_job": value.training_job,
        "create_time": time(value.create_time),
    }


def version(value: Version) -> Shape:
    return {
        "name": str(value.name),
        "parent": value.name.parent,
        "version": value.name.number,
        "kind": value.kind,
        "digest": value.digest,
        "engine_name": value.engine_name,
        "size_bytes": value.size_bytes,
        "aliases": list(value.aliases),
        "create_time": time(value.create_time),
    }


def version_with_manifest(value: Version) -> Shape:
    return {**version(value), "manifest": json.loads(value.manifest_json)}


def job(value: Job) -> Shape:
    return {
        "id": value.id,
        "name": value.name,
        "state": value.state,
        "base_model": value.base_model,
        "dataset": value.dataset,
        "output_model": value.output_model,
        "recipe": value.recipe,
        "merge": value.merge,
        "promote": value.promote,
        "spec": spec_options(value.spec),
        "progress": asdict(value.progress) if value.progress else None,
        "result_version": value.result_version,
        "merged_version": value.merged_version,
        "error": value.error,
        "error_reason": value.error_reason,
        "attempt": value.attempt,
        "create_time": time(value.create_time),
        "update_time": time(value.update_time),
        "end_time": time(value.end_time) if value.end_time else None,
    }


def checkpoint(value: Checkpoint) -> Shape:
    return {
        "name": value.name,
        "step": value.step,
        "loss": value.loss,
        "version": value.version,
        "model_name": value.model_name,
        "create_time": time(value.create_time),
    }


def recipe(value: Recipe) -> Shape:
    return {"name": value.name, "description": value.description, "spec": spec_options(value.spec)}


def report(value: ContractReport) -> Shape:
    return {
        "passed": value.passed,
        "summary": value.summary(),
        "rows": value.rows,
        "bad_rows": value.bad_rows,
        "assistant_turns": value.assistant_turns,
        "trained_turns": value.trained_turns,
        "multi_turn_rows": value.multi_turn_rows,
        "unanswered_rows": value.unanswered_rows,
        "duplicate_rows": value.duplicate_rows,
        "characters": value.characters,
        "trained_characters": value.trained_characters,
        "causes": [asdict(cause) for cause in value.causes],
        "errors": [asdict(error) for error in value.errors],
    }


def time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
