"""Checkpoints that are either whole or not there: written aside, synced, renamed.

A checkpoint directory `step-00000120` holds `weights.safetensors` (trained parameters), `adapter_config.json` for
LoRA, `optimizer.safetensors` and `checkpoint.json`, which is written last and carries the hash of every file.
Data order and dropout are functions of (seed, step), so no generator state needs to be kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tuneloom_common.manifests import Template
from tuneloom_common.objects import hash_file, sync
from tuneloom_data.templates import FrozenTemplate
from tuneloom_trainer.training_events import Note
from tuneloom_trainer.worker.checkpoint_records import (
    RECORD_FILE,
    CheckpointRecord,
    LocalCheckpoint,
    directory_name,
    leading_to,
    newest_whole,
)
from tuneloom_trainer.worker.learner import Learner
from tuneloom_trainer.worker.model import adapter_config
from tuneloom_trainer.worker.protocol import CHECKPOINTS_DIR, CheckpointSaved, Events, WorkerSpec
from tuneloom_trainer.worker.strategies import Strategy

WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"


class Checkpoints:
    """A job's checkpoints below its run directory. Rank 0 writes and tells; all ranks go on together."""

    def __init__(
        self,
        run_dir: Path,
        spec: WorkerSpec,
        events: Events,
        strategy: Strategy,
        *,
        template: FrozenTemplate,
        total_steps: int,
    ) -> None:
        self._run_dir = run_dir
        self._directory = run_dir / CHECKPOINTS_DIR
        self._spec = spec
        self._events = events
        self._strategy = strategy
        self._template = Template(**asdict(template))
        self._total_steps = total_steps

    def resume(self, learner: Learner) -> int:
        """Restores the newest checkpoint and returns its step, 0 when there is none."""
        self._directory.mkdir(exist_ok=True)
        found = newest_whole(self._directory, job=self._spec.job)
        if found is None:
            return 0
        restore(found, learner.parameters, learner.optimizer)
        self._events.emit(Note(text=f"resumed from the checkpoint at step {found.record.step}"))
        for unheard in leading_to(found, after=self._spec.registered):  # their attempt died before they were registered
            self._tell(unheard.path, step=unheard.record.step, loss=unheard.record.loss)
        return found.record.step

    def save(self, learner: Learner, *, step: int, loss: float) -> None:
        if self._strategy.rank == 0:
            record = CheckpointRecord(
                job=self._spec.job,
                lease_epoch=self._spec.lease_epoch,
                step=step,
                total_steps=self._total_steps,
                loss=loss,
                method=self._spec.training.tuning,
                template=self._template,
            )
            path = save(
                self._directory,
                parameters=learner.parameters,
                optimizer=learner.optimizer,
                adapter_config=adapter_config(learner.model),
                record=record,
            )
            self._tell(path, step=step, loss=loss)
        self._strategy.barrier()

    def _tell(self, path: Path, *, step: int, loss: float) -> None:
        relative = path.relative_to(self._run_dir).as_posix()
        self._events.emit(CheckpointSaved(step=step, loss=loss, path=relative, last=step == self._total_steps))


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
