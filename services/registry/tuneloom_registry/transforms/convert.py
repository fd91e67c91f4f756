"""Trainer checkpoint -> PEFT adapter, or, after a full fine-tune, a model in the base's types and shapes.

An adapter needs the base's headers only. A full model takes every weight from the checkpoint, and from the base what
was not trained: buffers. A weight that the base stores beside the one it is tied to gets that one's trained values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tuneloom_common.kinds import Kind
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms.specs import TransformResult, TransformSpec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights import checkpoints, coverage
from tuneloom_registry.weights.adapter_config import CONFIG_FILE
from tuneloom_registry.weights.adapters import WEIGHTS_FILE, read_adapter
from tuneloom_registry.weights.headers import FLOAT_TYPES, TensorSlice, read_header, read_model
from tuneloom_registry.weights.shards import ShardedWriter, copy_companions
from tuneloom_registry.weights.tensors import equal_values, from_float32, read_float32

Tensors = Mapping[str, TensorSlice]


def run(workspace: Workspace, spec: TransformSpec) -> TransformResult:
    """Writes `out/`: an adapter, or a base of its own after a full fine-tune."""
    if not (workspace.source / checkpoints.WEIGHTS_FILE).is_file():
        raise Refusal(
            "CHECKPOINT_INVALID", f"{checkpoints.WEIGHTS_FILE} is missing; only a trainer's checkpoint is converted"
        )
    workspace.out.mkdir()
    if (workspace.source / checkpoints.CONFIG_FILE).is_file():
        return _convert_lora(workspace, spec)
    return _convert_full(workspace, spec)


def _convert_lora(workspace: Workspace, spec: TransformSpec) -> TransformResult:
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in read_header(workspace.source / checkpoints.WEIGHTS_FILE).items():
        if tensor.dtype not in FLOAT_TYPES:
            raise Refusal("CHECKPOINT_INVALID", f"{name} is stored as {tensor.dtype}, not as floats")
        tensors[name.replace(".default.weight", ".weight")] = _read_finite(tensor)
    save_file(tensors, workspace.out / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((workspace.source / checkpoints.CONFIG_FILE).read_bytes())
    config.update(base_model_name_or_path=spec.base_name, inference_mode=True, target_modules=_leaves(tensors))
    (workspace.out / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True))
    adapter = read_adapter(workspace.out)
    weights = read_model(workspace.base, headers=workspace.headers)
    for name, update in adapter.updates.items():
        if name not in weights or weights[name].shape != (update.b.shape[0], update.a.shape[1]):
            raise Refusal("ADAPTER_INVALID", f"{update.module} does not fit a weight of the base")
    return TransformResult(kind=Kind.ADAPTER, lora=adapter.lora)


def _convert_full(workspace: Workspace, spec: TransformSpec) -> TransformResult:
    trained = read_header(workspace.source / checkpoints.WEIGHTS_FILE)
    stored = read_model(workspace.base, headers=workspace.headers)
    trained_as = _trained_names(stored, trained)
    with ShardedWriter(workspace.out, list(stored.values()), max_shard_bytes=spec.max_shard_size_bytes) as writer:
        for done, tensor in enumerate(stored.values(), start=1):
            if own := trained_as.get(tensor.name):
                writer.write(tensor, _encoded(trained[own], tensor))
            else:
                writer.copy(tensor)
            workspace.tell(f"converted {done} of {len(stored)} tensors")
    copy_companions(workspace.base, workspace.out)
    return TransformResult(kind=Kind.BASE)


def _trained_names(stored: Tensors, trained: Tensors) -> dict[str, str]:
    """Stored name -> name in the checkpoint, for all but buffers; every trained weight finds its place."""
    covered = coverage.of(stored, trained)
    if covered.left_over:
        raise Refusal(
            "CHECKPOINT_INVALID",
            f"the checkpoint holds {covered.left_over[0]} and {len(covered.left_over) - 1} more weights that the base "
            "does not store under these names; save the base again with save_pretrained and train on that",
        )
    names = {name: name for name in stored if name in trained} | dict(covered.renamed)
    for name, partners in covered.perhaps_tied.items():
        for partner in partners:
            if equal_values(stored[name], stored[partner]):
                names[name] = partner
                break
    return names


def _encoded(own: TensorSlice, tensor: TensorSlice) -> bytes:
    if own.shape != tensor.shape or own.dtype not in FLOAT_TYPES or tensor.dtype not in FLOAT_TYPES:
        raise Refusal("CHECKPOINT_INVALID", f"{own.name} does not fit the weight {tensor.name} of the base")
    return from_float32(_read_finite(own), tensor.dtype)


def _read_finite(tensor: TensorSlice) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = read_float32(tensor)
    if not np.isfinite(values).all():
        raise Refusal("NON_FINITE_WEIGHTS", f"{tensor.name} holds NaN or infinity; use an earlier checkpoint")
    return values


def _leaves(tensors: dict[str, Any]) -> list[str]:
    return sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors})
