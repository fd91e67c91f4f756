"""A model's weights and companions as files: sharded, indexed, in the layout of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tuneloom_registry.weights.headers import INDEX_FILE, SINGLE_FILE, SUFFIX, TensorSlice, encode_header
from tuneloom_registry.weights.tensors import copy_bytes


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
        if path.is_file() and path.suffix != SUFFIX and path.name != INDEX_FILE:
            shutil.copyfile(path, out / path.name)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
