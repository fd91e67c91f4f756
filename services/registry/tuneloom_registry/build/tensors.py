"""Safetensors files as byte ranges: read, convert and write them without ever holding a model in memory.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
Source: the safetensors format description, version 0.x (stable).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
COPY_BYTES = 8 << 20
_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1,
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


def read_header(path: Path) -> dict[str, TensorSlice]:
    """The tensors of one file, in file order; raises ValueError for a damaged file."""
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        total = path.stat().st_size
        if not 0 < length <= total - 8:
            raise ValueError(f"{path.name} is not a safetensors file or is cut short")
        header: dict[str, Any] = json.loads(source.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        expected = _ITEM_BYTES.get(entry["dtype"], 0) * int(np.prod(shape, dtype=np.int64))
        if end - begin != expected or 8 + length + end > total:
            raise ValueError(f"{path.name}: tensor {name} is cut short or of unknown type {entry['dtype']}")
        tensors[name] = TensorSlice(name, path, entry["dtype"], shape, 8 + length + begin, end - begin)
    return tensors


def read_model(directory: Path) -> dict[str, TensorSlice]:
    """All tensors of a model directory, single-file or sharded by index, never by listing."""
    index = directory / INDEX_FILE
    names = [SINGLE_FILE]
    if index.is_file():
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    tensors: dict[str, TensorSlice] = {}
    for name in names:
        if "/" in name or not (directory / name).is_file():
            raise ValueError(f"weight file {name} is missing")
        tensors.update(read_header(directory / name))
    return tensors


def to_float32(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Decodes F32, F16 or BF16 bytes into a flat float32 array."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def from_float32(values: np.ndarray[Any, np.dtype[np.float32]], dtype: str) -> bytes:
    """Encodes float32 values, rounding to nearest even."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        bits = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
        return (bits >> 16).astype("<u2").tobytes()
    return values.astype("<f4" if dtype == "F32" else "<f2").tobytes()


def read_float32(tensor: TensorSlice) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One whole tensor as float32, in its shape."""
    with tensor.file.open("rb") as source:
        source.seek(tensor.start)
        return to_float32(source.read(tensor.size), tensor.dtype).reshape(tensor.shape)


def row_blocks(tensor: TensorSlice, *, block_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """(first row, end row, bytes) of a matrix, in blocks of about `block_bytes`."""
    rows, columns = tensor.shape
    row_bytes = columns * _ITEM_BYTES[tensor.dtype]
    per_block = max(1, block_bytes // max(1, row_bytes))
    with tensor.file.open("rb") as source:
        source.seek(tensor.start)
        for first in range(0, rows, per_block):
            end = min(rows, first + per_block)
            yield first, end, source.read((end - first) * row_bytes)


def copy_bytes(tensor: TensorSlice, target: Any) -> None:
    """Copies a tensor's bytes unchanged, inside the kernel where it can."""
    target.flush()
    with tensor.file.open("rb") as source:
        offset, left = tensor.start, tensor.size
        while left:
            copied = os.sendfile(target.fileno(), source.fileno(), offset, min(left, COPY_BYTES))
            if not copied:
                raise ValueError(f"{tensor.file.name} became shorter while it was read")
            offset, left = offset + copied, left - copied


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
    return len(text).to_bytes(8, "little") + text
