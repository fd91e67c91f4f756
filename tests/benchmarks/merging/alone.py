"""The merge alone, files to files, ours or PEFT's: `python -m tests.benchmarks.merging.alone WHO BASE ADAPTER OUT`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

MAX_SHARD_BYTES = 2_000_000_000


def ours(base: Path, adapter: Path, out: Path) -> float:
    from tuneloom_registry.transforms.merge import merge

    began = time.perf_counter()
    merge(base, adapter, out, max_shard_bytes=MAX_SHARD_BYTES)
    return time.perf_counter() - began


def peer(base: Path, adapter: Path, out: Path) -> float:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    began = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(out, max_shard_size=MAX_SHARD_BYTES)
    return time.perf_counter() - began


if __name__ == "__main__":
    seconds = {"ours": ours, "peer": peer}[sys.argv[1]](*map(Path, sys.argv[2:]))
    print(json.dumps({"seconds": round(seconds, 3)}))
