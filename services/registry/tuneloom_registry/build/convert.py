"""Trainer checkpoint -> PEFT adapter, or, after a full fine-tune, a model in the base's types and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tuneloom_registry.build.adapters import CONFIG_FILE, WEIGHTS_FILE, Adapter, read_adapter
from tuneloom_registry.build.failures import BuildFailed
from tuneloom_registry.build.merge import ShardedWriter, copy_companions
from tuneloom_registry.build.tensors import FLOAT_TYPES, from_float32, read_float32, read_header, read_model

CHECKPOINT_WEIGHTS = "weights.safetensors"
CHECKPOINT_RECORD = "checkpoint.json"


def convert(checkpoint: Path, base: Path, out: Path, *, base_name: str, max_shard_bytes: int) -> Adapter | None:
    """Writes `out`; returns the adapter, or None when the result is a full model."""
    record: dict[str, Any] = json.loads((checkpoint / CHECKPOINT_RECORD).read_bytes())
    if record["method"] == "full":
        _convert_full(checkpoint, base, out, max_shard_bytes=max_shard_bytes)
        return None
    return _convert_lora(checkpoint, base, out, base_name=base_name)


def _convert_lora(checkpoint: Path, base: Path, out: Path, *, base_name: str) -> Adapter:
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in read_header(checkpoint / CHECKPOINT_WEIGHTS).items():
        if tensor.dtype not in FLOAT_TYPES:
            raise BuildFailed("CHECKPOINT_INVALID", f"{name} is stored as {tensor.dtype}, not as floats")
        values = read_float32(tensor)
        _require_finite(name, values)
        tensors[name.replace(".default.weight", ".weight")] = values
    out.mkdir()
    save_file(tensors, out / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((checkpoint / CONFIG_FILE).read_bytes())
    config.update(base_model_name_or_path=base_name, inference_mode=True, target_modules=_leaves(tensors))
    (out / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True))
    adapter = read_adapter(out)
    weights = read_model(base)
    for name, update in adapter.updates.items():
        if name not in weights or weights[name].shape != (update.b.shape[0], update.a.shape[1]):
            raise BuildFailed("ADAPTER_INVALID", f"{update.module} does not fit a weight of the base")
    return adapter


def _convert_full(checkpoint: Path, base: Path, out: Path, *, max_shard_bytes: int) -> None:
    trained = read_header(checkpoint / CHECKPOINT_WEIGHTS)
    weights = read_model(base)
    missing = [name for name in weights if name not in trained]
    if missing:
        raise BuildFailed("CHECKPOINT_INVALID", f"the checkpoint lacks {missing[0]} and {len(missing) - 1} more")
    out.mkdir()
    with ShardedWriter(out, list(weights.values()), max_shard_bytes=max_shard_bytes) as writer:
        for tensor in weights.values():
            own = trained[tensor.name]
            if own.shape != tensor.shape or own.dtype not in FLOAT_TYPES or tensor.dtype not in FLOAT_TYPES:
                raise BuildFailed("CHECKPOINT_INVALID", f"{own.name} does not fit the weight of the base")
            values = read_float32(own)
            _require_finite(tensor.name, values)
            writer.write(tensor, from_float32(values, tensor.dtype))
    copy_companions(base, out)


def _require_finite(name: str, values: np.ndarray[Any, Any]) -> None:
    if not np.isfinite(values).all():
        raise BuildFailed("NON_FINITE_WEIGHTS", f"{name} holds NaN or infinity; use an earlier checkpoint")


def _leaves(tensors: dict[str, Any]) -> list[str]:
    return sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in tensors})
