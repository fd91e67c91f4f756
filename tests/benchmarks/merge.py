"""Streaming merge against PEFT: `python tests/benchmarks/merge.py`, about a minute, 3 GB of temporary disk.

A randomly initialised model in the shape of Qwen2.5-0.5B (bf16) and a random LoRA of rank 16 on every linear layer
are merged by ours and by the peer (transformers + PEFT merge_and_unload + save_pretrained, bf16 on the CPU), each
time in a fresh process, in turn. `seconds` is the merge itself, from files to files; `process_seconds` adds the
start of Python and the imports; peak memory is the process's largest resident set, mapped files included. Then every
tensor of the two results is compared. The last line is one JSON object.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tuneloom_registry.weights.headers import TensorSlice, encode_header, read_model
from tuneloom_registry.weights.tensors import from_float32, row_blocks, to_float32

ROUNDS = 3
MAX_SHARD_BYTES = 2_000_000_000
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


def main() -> None:
    if len(sys.argv) > 1:
        _child(sys.argv[1], *map(Path, sys.argv[2:]))
        return
    with tempfile.TemporaryDirectory(prefix="merge-benchmark-") as name:
        work = Path(name)
        base, adapter = work / "base", work / "adapter"
        write_base(base)
        write_adapter(adapter)
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS):
            for who, measured in runs.items():
                shutil.rmtree(work / who, ignore_errors=True)
                measured.append(_run(who, base, adapter, work / who))
        worst = compare(base, work / "ours", work / "peer")
    medians = {
        who: {key: statistics.median(run[key] for run in measured) for key in measured[0]}
        for who, measured in runs.items()
    }
    _print_report(medians, worst)


def write_base(directory: Path) -> None:
    """A model directory without a tokenizer, which neither side reads."""
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
    (directory / "config.json").write_text(json.dumps(CONFIG))
    _write(directory / "model.safetensors", shapes, "BF16", scale=0.02)


def write_adapter(directory: Path) -> None:
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
    _write(directory / "adapter_model.safetensors", shapes, "F32", scale=0.01)


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


def _write(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, *, scale: float) -> None:
    generator = np.random.default_rng(0)
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


def _run(who: str, base: Path, adapter: Path, out: Path) -> dict[str, float]:
    from tuneloom_registry.builder import CHILD_ENVIRONMENT

    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, who, base, adapter, out],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **CHILD_ENVIRONMENT, "HF_HUB_OFFLINE": "1"},
    )
    process_seconds = time.perf_counter() - started
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**measured, "process_seconds": round(process_seconds, 3)}


def _child(who: str, base: Path, adapter: Path, out: Path) -> None:
    seconds = {"ours": _merge_ours, "peer": _merge_peer}[who](base, adapter, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_memory_mib": round(peak, 1), "seconds": round(seconds, 3)}))


def _merge_ours(base: Path, adapter: Path, out: Path) -> float:
    from tuneloom_registry.transforms.merge import merge

    started = time.perf_counter()
    merge(base, adapter, out, max_shard_bytes=MAX_SHARD_BYTES)
    return time.perf_counter() - started


def _merge_peer(base: Path, adapter: Path, out: Path) -> float:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    started = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(out, max_shard_size=MAX_SHARD_BYTES)
    return time.perf_counter() - started


def _print_report(medians: dict[str, dict[str, float]], worst: float) -> None:
    print(f"{'median of ' + str(ROUNDS):16} {'peak memory':>12} {'merge':>9} {'process':>9}")
    for who, figures in medians.items():
        print(
            f"{who:16} {figures['peak_memory_mib']:8.0f} MiB {figures['seconds']:7.2f} s "
            f"{figures['process_seconds']:7.2f} s"
        )
    print(f"largest difference of two weights: {worst:.2g} (within bf16 rounding)")
    ours, peer = medians["ours"], medians["peer"]
    packages = ("numpy", "torch", "transformers", "peft", "safetensors")
    report = {
        "benchmark": "merge",
        "ours": ours,
        "peer": peer,
        "ratio": {
            "peak_memory": round(ours["peak_memory_mib"] / peer["peak_memory_mib"], 4),
            "seconds": round(ours["seconds"] / peer["seconds"], 4),
        },
        "max_abs_difference": worst,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
