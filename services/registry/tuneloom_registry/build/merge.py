"""Streaming merge: W + scale * B @ A, tensor by tensor, block by block.

Memory is bounded by the adapter plus a few blocks, whatever the model's size; no GPU and no torch. Weights the
adapter does not touch are copied as bytes. The sum is taken in float32 and rounded once to the base's own type.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from tuneloom_registry.build.adapters import Adapter, read_adapter
from tuneloom_registry.build.failures import BuildFailed
from tuneloom_registry.build.tensors import (
    FLOAT_TYPES,
    INDEX_FILE,
    SINGLE_FILE,
    TensorSlice,
    copy_bytes,
    encode_header,
    from_float32,
    read_float32,
    read_model,
    row_blocks,
    to_float32,
)

BLOCK_BYTES = 1 << 20


def merge(
    base: Path,
    adapter_dir: Path,
    out: Path,
    *,
    max_shard_bytes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Adapter:
    """Writes the merged model to `out`, a directory that must not exist yet."""
    adapter = read_adapter(adapter_dir)
    tensors = read_model(base)
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


class ShardedWriter:
    """Writes tensors in a given order into one file or several, with an index, in the layout of transformers."""

    def __init__(self, out: Path, tensors: list[TensorSlice], *, max_shard_bytes: int) -> None:
        self._out = out
        self._shards = plan_shards(tensors, max_shard_bytes)
        self._names = _shard_names(len(self._shards))
        self._where = {tensor.name: i for i, shard in enumerate(self._shards) for tensor in shard}
        self._total = sum(tensor.size for tensor in tensors)
        self._open: tuple[int, BinaryIO] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open[1].close()
        if error is None and len(self._names) > 1:
            weight_map = {name: self._names[shard] for name, shard in self._where.items()}
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            (self._out / INDEX_FILE).write_text(json.dumps(index, indent=1, sort_keys=True))

    def write(self, tensor: TensorSlice, data: bytes) -> None:
        """Appends bytes of the tensor; blocks of one tensor follow each other."""
        self._file(tensor).write(data)

    def copy(self, tensor: TensorSlice) -> None:
        copy_bytes(tensor, self._file(tensor))

    def _file(self, tensor: TensorSlice) -> BinaryIO:
        shard = self._where[tensor.name]
        if self._open is None or self._open[0] != shard:
            if self._open:
                self._open[1].close()
            file = (self._out / self._names[shard]).open("wb")
            file.write(encode_header(self._shards[shard]))
            self._open = (shard, file)
        return self._open[1]


def plan_shards(tensors: list[TensorSlice], max_shard_bytes: int) -> list[list[TensorSlice]]:
    """Consecutive tensors per shard, at most `max_shard_bytes` each unless one tensor alone is larger."""
    shards: list[list[TensorSlice]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.size > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.size
    return shards


def copy_companions(base: Path, out: Path) -> None:
    """Tokenizer, template and configuration travel with the weights, byte for byte."""
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.name != INDEX_FILE:
            shutil.copyfile(path, out / path.name)


def _write_updated(writer: ShardedWriter, tensor: TensorSlice, adapter: Adapter) -> None:
    update = adapter.updates[tensor.name]
    a = read_float32(update.a)
    b = read_float32(update.b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise BuildFailed("NON_FINITE_WEIGHTS", f"the adapter's update of {update.module} holds NaN or infinity")
    b *= update.scale
    for first, end, data in row_blocks(tensor, block_bytes=BLOCK_BYTES):
        rows = to_float32(data, tensor.dtype).reshape(end - first, tensor.shape[1])
        rows += b[first:end] @ a
        writer.write(tensor, from_float32(rows, tensor.dtype))


def _require_mergeable(adapter: Adapter, tensors: dict[str, TensorSlice]) -> None:
    for name, update in adapter.updates.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise BuildFailed("BASE_MISMATCH", f"the base has no weight {name}, which the adapter updates")
        if tensor.shape != (update.b.shape[0], update.a.shape[1]):
            raise BuildFailed("BASE_MISMATCH", f"{name} has shape {tensor.shape}, the adapter expects another")
        if tensor.dtype not in FLOAT_TYPES:
            raise BuildFailed(
                "BASE_QUANTIZED", f"{name} is stored as {tensor.dtype}; merge into the 16-bit base instead"
            )


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
