"""Streaming merge: W + scale * B @ A, tensor by tensor, block by block.

Memory is bounded by the adapter plus a few blocks, whatever the model's size; no GPU and no torch. Weights the
adapter does not touch are copied as bytes. The sum is taken in float32 and rounded once to the base's own type.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tuneloom_common.children import COMPUTE_ENVIRONMENT
from tuneloom_common.kinds import Kind
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms.specs import TransformResult, TransformSpec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.adapters import Adapter, read_adapter
from tuneloom_registry.weights.headers import FLOAT_TYPES, TensorSlice, read_model
from tuneloom_registry.weights.shards import ShardedWriter, copy_companions
from tuneloom_registry.weights.tensors import from_float32, read_float32, row_blocks, to_float32

BLOCK_BYTES = 1 << 20


def run(workspace: Workspace, spec: TransformSpec) -> TransformResult:
    """Writes the merged model to `out/` and proves it."""
    adapter = merge(
        workspace.base,
        workspace.source,
        workspace.out,
        max_shard_bytes=spec.max_shard_size_bytes,
        on_progress=lambda done, total: workspace.tell(f"merged {done} of {total} tensors"),
    )
    os.environ.update(COMPUTE_ENVIRONMENT)
    from tuneloom_registry.proof.prove import DEFAULT_PROMPTS, prove

    prompts = tuple(dict.fromkeys((*spec.proof_prompts, *DEFAULT_PROMPTS)))
    workspace.tell(f"proving on {len(prompts)} prompts")
    proof = prove(
        workspace.base,
        workspace.source,
        workspace.out,
        prompts=prompts,
        dtype=spec.proof_dtype,
        min_greedy_agreement=spec.min_greedy_agreement,
    )
    return TransformResult(kind=Kind.MERGED, lora=adapter.lora, proof=proof)


def merge(
    base: Path,
    adapter_dir: Path,
    out: Path,
    *,
    max_shard_bytes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Adapter:
    """Writes the merged model to `out`, a directory that must not exist yet."""
    tensors = read_model(base)
    adapter = read_adapter(adapter_dir, base_tensors=tensors)
    _require_mergeable(adapter, tensors)
    out.mkdir()
    with ShardedWriter(out, list(tensors.values()), max_shard_bytes=max_shard_bytes) as writer:
        for done, tensor in enumerate(tensors.values(), start=1):
            if tensor.name in adapter.updates:
                _write_updated(writer, tensor, adapter)
            else:
                writer.copy(tensor)
            on_progress(done, len(tensors))
    copy_companions(base, out)
    return adapter


def _write_updated(writer: ShardedWriter, tensor: TensorSlice, adapter: Adapter) -> None:
    update = adapter.updates[tensor.name]
    a = read_float32(update.a)
    b = read_float32(update.b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise Refusal("NON_FINITE_WEIGHTS", f"the adapter's update of {update.module} holds NaN or infinity")
    b *= update.scale
    for first, end, data in row_blocks(tensor, block_bytes=BLOCK_BYTES):
        rows = to_float32(data, tensor.dtype).reshape(end - first, tensor.shape[1])
        rows += b[first:end] @ a
        writer.write(tensor, from_float32(rows, tensor.dtype))


def _require_mergeable(adapter: Adapter, tensors: dict[str, TensorSlice]) -> None:
    for name, update in adapter.updates.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise Refusal("BASE_MISMATCH", f"the base has no weight {name}, which the adapter updates")
        if tensor.shape != (update.b.shape[0], update.a.shape[1]):
            raise Refusal("BASE_MISMATCH", f"{name} has shape {tensor.shape}, the adapter expects another")
        if tensor.dtype not in FLOAT_TYPES:
            raise Refusal("BASE_QUANTIZED", f"{name} is stored as {tensor.dtype}; merge into the 16-bit base instead")
