"""Checkpoints that are either whole or not there: written aside, synced, renamed.

A checkpoint directory `step-00000120` holds `weights.safetensors` (trained parameters), `adapter_config.json` for
LoRA, `optimizer.safetensors` and `checkpoint.json`, which is written last and carries the hash of every file.
Data order and dropout are functions of (seed, step), so no generator state needs to be kept.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tuneloom_common.objects import hash_file, sync
from tuneloom_trainer.worker.checkpoint_records import RECORD_FILE, CheckpointRecord, LocalCheckpoint, directory_name

WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"


def save(
    directory: Path,
    *,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    adapter_config: dict[str, Any] | None,
    record: CheckpointRecord,
) -> Path:
    """Writes one checkpoint atomically and returns its directory; the hashes of its files join the record."""
    target = directory / directory_name(record.step)
    staging = directory / f".{target.name}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    save_file(weights, staging / WEIGHTS_FILE, metadata={"format": "pt"})
    save_file(_optimizer_tensors(parameters, optimizer), staging / OPTIMIZER_FILE)
    if adapter_config is not None:
        (staging / "adapter_config.json").write_text(json.dumps(adapter_config, indent=1, sort_keys=True))
    hashes = {path.name: hash_file(path)[0] for path in sorted(staging.iterdir())}
    body = record.model_copy(update={"files": hashes}).model_dump(mode="json")
    (staging / RECORD_FILE).write_text(json.dumps(body, indent=1, sort_keys=True))
    for path in staging.iterdir():
        sync(path)
    sync(staging)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync(directory)
    return target


def restore(
    checkpoint: LocalCheckpoint, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
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
