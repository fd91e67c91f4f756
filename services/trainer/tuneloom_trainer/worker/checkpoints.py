"""Checkpoints that are either whole or not there: written aside, synced, renamed, verified before use.

A checkpoint directory `step-00000120` holds `weights.safetensors` (trained parameters), `adapter_config.json` for
LoRA, `optimizer.safetensors` and `checkpoint.json`, which is written last and carries the hash of every file.
Data order and dropout are functions of (seed, step), so no generator state needs to be kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tuneloom_common.objects import hash_file, sync

RECORD_FILE = "checkpoint.json"
WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk that was found whole."""

    path: Path
    step: int
    record: dict[str, Any]


def save(
    directory: Path,
    *,
    step: int,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    adapter_config: dict[str, Any] | None,
    record: dict[str, Any],
) -> Path:
    """Writes one checkpoint atomically and returns its directory."""
    target = directory / f"step-{step:08d}"
    staging = directory / f".{target.name}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    save_file(weights, staging / WEIGHTS_FILE, metadata={"format": "pt"})
    save_file(_optimizer_tensors(parameters, optimizer), staging / OPTIMIZER_FILE)
    if adapter_config is not None:
        (staging / "adapter_config.json").write_text(json.dumps(adapter_config, indent=1, sort_keys=True))
    hashes = {path.name: hash_file(path)[0] for path in sorted(staging.iterdir())}
    body = {**record, "step": step, "files": hashes}
    (staging / RECORD_FILE).write_text(json.dumps(body, indent=1, sort_keys=True))
    for path in staging.iterdir():
        sync(path)
    sync(staging)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync(directory)
    return target


def newest_valid(directory: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are all what their hashes say."""
    for path in sorted(directory.glob("step-*"), reverse=True):
        if record := _verified_record(path):
            return Checkpoint(path=path, step=int(record["step"]), record=record)
    return None


def restore(
    checkpoint: Checkpoint, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Puts weights and optimizer state back; raises KeyError when the checkpoint is of another model."""
    weights = load_file(checkpoint.path / WEIGHTS_FILE)
    state = load_file(checkpoint.path / OPTIMIZER_FILE)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            if f"{name}/step" in state:  # a parameter that never had a gradient has none
                optimizer.state[parameter] = {
                    key: state[f"{name}/{key}"].to("cpu" if key == "step" else parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }


def _optimizer_tensors(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": torch.as_tensor(value).detach().cpu().clone()
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def _verified_record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((path / RECORD_FILE).read_bytes())
        whole = all(hash_file(path / name)[0] == sha256 for name, sha256 in record["files"].items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return record if whole else None
