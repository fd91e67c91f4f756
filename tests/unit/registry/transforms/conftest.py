"""Tiny models and adapters as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneloom_registry.weights.headers import TensorSlice, encode_header, read_model
from tuneloom_registry.weights.tensors import from_float32, read_float32

Array = np.ndarray[Any, Any]
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (11, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_proj.bias": (8,),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.norm.weight": (8,),
}
TARGETS = {"model.layers.0.self_attn.q_proj": (8, 8), "model.layers.0.mlp.down_proj": (8, 12)}
COMPANIONS = {
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": '{"模": 1}'.encode(),
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b"{}",
}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, Array]]) -> None:
    """Writes float arrays as the given types, rounding to nearest even."""
    data = {name: from_float32(values.astype(np.float32), dtype) for name, (dtype, values) in tensors.items()}
    plan = [
        TensorSlice(name, path, dtype, values.shape, 0, len(data[name])) for name, (dtype, values) in tensors.items()
    ]
    path.write_bytes(encode_header(plan) + b"".join(data.values()))


def write_base(directory: Path, *, dtype: str = "BF16", shapes: dict[str, tuple[int, ...]] = SHAPES) -> Path:
    generator = np.random.default_rng(1)
    directory.mkdir()
    values = {name: (dtype, generator.standard_normal(shape, dtype=np.float32)) for name, shape in shapes.items()}
    write_safetensors(directory / "model.safetensors", values)
    for name, content in COMPANIONS.items():
        (directory / name).write_bytes(content)
    return directory


def write_adapter(directory: Path, *, r: int = 4, dtype: str = "F32", scale: float = 0.1, **config: Any) -> Path:
    """Rank r for every target, unless `ranks` says otherwise."""
    ranks = config.pop("ranks", {})
    generator = np.random.default_rng(2)
    directory.mkdir()
    tensors = {}
    for module, (rows, columns) in TARGETS.items():
        rank = ranks.get(module, r)
        a = generator.standard_normal((rank, columns)) * scale
        b = generator.standard_normal((rows, rank)) * scale
        tensors[f"base_model.model.{module}.lora_A.weight"] = (dtype, a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = (dtype, b)
    write_safetensors(directory / "adapter_model.safetensors", tensors)
    write_config(directory, r=r, **config)
    return directory


def write_config(directory: Path, **config: Any) -> None:
    chosen = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **config}
    (directory / "adapter_config.json").write_text(json.dumps(chosen))


def arrays(directory: Path) -> dict[str, Array]:
    return {name: read_float32(tensor) for name, tensor in read_model(directory).items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")
