"""A randomly initialised model in the shape of Qwen2.5-0.5B (bf16), random LoRAs, and how close results are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tuneloom_registry.weights.headers import TensorSlice, encode_header, read_model
from tuneloom_registry.weights.tensors import from_float32, row_blocks, to_float32

SEED_MODEL = Path(__file__).parents[3] / "models" / "seed" / "weights"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BLOCK_BYTES = 8 << 20

HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE, VOCABULARY = 896, 24, 14, 2, 4864, 151_936
KV = HIDDEN // HEADS * KV_HEADS
RANK, ALPHA = 16, 32
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": INTERMEDIATE,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def write_base(directory: Path) -> None:
    """A model directory, with the seed model's tokenizer for the proof."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for module, shape in LINEAR.items():
            shapes[f"{prefix}.{module}.weight"] = shape
        for module, size in (("q_proj", HIDDEN), ("k_proj", KV), ("v_proj", KV)):
            shapes[f"{prefix}.self_attn.{module}.bias"] = (size,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{norm}.weight"] = (HIDDEN,)
    shapes["model.norm.weight"] = (HIDDEN,)
    directory.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(SEED_MODEL / name, directory)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    _write(directory / "model.safetensors", shapes, "BF16", scale=0.02, seed=0)


def write_adapter(directory: Path, *, seed: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        for module, (rows, columns) in LINEAR.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            shapes[f"{name}.lora_A.weight"] = (RANK, columns)
            shapes[f"{name}.lora_B.weight"] = (rows, RANK)
    directory.mkdir()
    targets = sorted(module.rpartition(".")[2] for module in LINEAR)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    _write(directory / "adapter_model.safetensors", shapes, "F32", scale=0.01, seed=seed)


def compare(base: Path, ours: Path, peer: Path) -> float:
    """The largest difference of two weights; raises when one is more than rounding.

    Ours rounds W + delta once; PEFT rounds delta and then the sum, each by at most 2^-9 of its size.
    """
    weights, mine, theirs = read_model(base), read_model(ours), read_model(peer)
    if not weights.keys() == mine.keys() == theirs.keys():
        raise SystemExit("the results do not hold the same tensors")
    worst, changed = 0.0, False
    for name in weights:
        for w, a, b in zip(*(_blocks(model[name]) for model in (weights, mine, theirs)), strict=True):
            difference = np.abs(a - b)
            allowed = np.maximum(np.abs(a), np.abs(b)) / 128 + np.abs(a - w) / 256
            if (difference > allowed).any():
                raise SystemExit(f"{name}: the results differ by {difference.max()}, which is more than rounding")
            worst = max(worst, float(difference.max()))
            changed = changed or bool((a != w).any())
    if not changed:
        raise SystemExit("nothing was merged")
    return worst


def _write(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, *, scale: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    item = {"BF16": 2, "F32": 4}[dtype]
    plan = [TensorSlice(name, path, dtype, shape, 0, item * int(np.prod(shape))) for name, shape in shapes.items()]
    pool = from_float32(generator.standard_normal(1 << 22, dtype=np.float32) * np.float32(scale), dtype)
    with path.open("wb") as output:
        output.write(encode_header(plan))
        for tensor in plan:
            left = tensor.size
            while left:
                start = item * int(generator.integers(1 << 21))
                output.write(pool[start : start + left])
                left -= len(pool[start : start + left])


def _blocks(tensor: TensorSlice) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    flat = TensorSlice(tensor.name, tensor.file, tensor.dtype, (tensor.size // 2, 1), tensor.start, tensor.size)
    for _, _, data in row_blocks(flat, block_bytes=BLOCK_BYTES):
        yield to_float32(data, tensor.dtype)
