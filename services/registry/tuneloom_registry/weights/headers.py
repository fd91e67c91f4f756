"""Safetensors headers: which tensors a file or a model holds, and where their bytes are.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
Source: the safetensors format description, version 0.x (stable).
"""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
SUFFIX = ".safetensors"
LENGTH_BYTES = 8
MAX_INDEX_BYTES = 16 << 20  # 180,000 tensors
MAX_HEADER_BYTES = 16 << 20  # 100,000 tensors in one file; the safetensors library allows 100 MB
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOAT_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """Where one tensor's bytes are. `start` is absolute in the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def header_length(prefix: bytes, *, name: str, total: int) -> int:
    """Length in bytes of the JSON header of a file of `total` bytes, from its first 8; raises ValueError."""
    length = int.from_bytes(prefix, "little")
    if not 0 < length <= total - LENGTH_BYTES:
        raise ValueError(f"{name} is not a safetensors file or is cut short")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"{name}: its safetensors header has {length} bytes, at most {MAX_HEADER_BYTES} are read; store the "
            "weights in several files"
        )
    return length


def read_header(path: Path) -> dict[str, TensorSlice]:
    """The tensors of one file, in file order; raises ValueError for a damaged file."""
    total = path.stat().st_size
    with path.open("rb") as source:
        length = header_length(source.read(LENGTH_BYTES), name=path.name, total=total)
        try:
            slices = _parse_header(path, json.loads(source.read(length)), start=LENGTH_BYTES + length)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise ValueError(f"{path.name}: its header is damaged") from None
    end = LENGTH_BYTES + length
    for tensor in slices:
        expected = ITEM_BYTES.get(tensor.dtype, -1) * math.prod(tensor.shape)
        if tensor.start != end or tensor.size != expected or min(tensor.shape, default=0) < 0:
            raise ValueError(f"{path.name}: tensor {tensor.name} is cut short or of unknown type {tensor.dtype}")
        end += tensor.size
    if end != total:
        raise ValueError(f"{path.name} is cut short, or its header is damaged")
    return {tensor.name: tensor for tensor in slices}


def _parse_header(path: Path, header: dict[str, Any], *, start: int) -> list[TensorSlice]:
    slices = []
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = map(operator.index, entry["data_offsets"])
            shape = tuple(map(operator.index, entry["shape"]))
            slices.append(TensorSlice(name, path, str(entry["dtype"]), shape, start + begin, end - begin))
    return sorted(slices, key=lambda tensor: (tensor.start, tensor.size))


def read_model(directory: Path, *, headers: Path | None = None) -> dict[str, TensorSlice]:
    """All tensors of a model directory, single-file or sharded by index, never by listing.

    `headers` may hold files that have a header and no weights, for those that `directory` lacks; to read such a
    tensor is a FileNotFoundError.
    """
    where = _read_index(directory / INDEX_FILE)
    tensors: dict[str, TensorSlice] = {}
    for name in sorted(set(where.values())) if where is not None else [SINGLE_FILE]:
        tensors.update(_read_shard(str(name), directory, headers))
    if where and (missing := where.keys() - tensors.keys()):
        raise ValueError(f"{where[min(missing)]} lacks {min(missing)}, which {INDEX_FILE} names")
    return tensors


def _read_index(path: Path) -> dict[str, str] | None:
    """File names by tensor; None when there is no index."""
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_INDEX_BYTES} bytes")
    try:
        where = json.loads(path.read_bytes())["weight_map"]
        return {str(name): str(file) for name, file in where.items()}
    except (AttributeError, KeyError, RecursionError, TypeError):
        raise ValueError(f"{path.name} has no weight_map") from None


def _read_shard(name: str, directory: Path, headers: Path | None) -> dict[str, TensorSlice]:
    path = directory / name
    if "/" in name or not (path.is_file() or (headers and (headers / name).is_file())):
        raise ValueError(f"weight file {name} is missing")
    if path.is_file() or headers is None:
        return read_header(path)
    return {key: replace(tensor, file=path) for key, tensor in read_header(headers / name).items()}


def encode_header(tensors: list[TensorSlice]) -> bytes:
    """The header of a file that will hold these tensors in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
