"""Safetensors files as byte ranges: read, convert and write them without ever holding a model in memory.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
Source: the safetensors format description, version 0.x (stable).
"""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
COPY_BYTES = 8 << 20
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_ITEM_BYTES = {
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


def read_header(path: Path) -> dict[str, TensorSlice]:
    """The tensors of one file, in file order; raises ValueError for a damaged file."""
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        total = path.stat().st_size
        if not 0 < length <= min(total - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{path.name} is not a safetensors file or is cut short")
        try:
            slices = _parse_header(path, json.loads(source.read(length)), start=8 + length)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise ValueError(f"{path.name}: its header is damaged") from None
    end = 8 + length
    for tensor in slices:
        expected = _ITEM_BYTES.get(tensor.dtype, -1) * math.prod(tensor.shape)
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


def read_model(directory: Path) -> dict[str, TensorSlice]:
    """All tensors of a model directory, single-file or sharded by index, never by listing."""
    index = directory / INDEX_FILE
    where: dict[str, str] = {}
    names = [SINGLE_FILE]
    if index.is_file():
        try:
            where = json.loads(index.read_bytes())["weight_map"]
            names = sorted(set(where.values()))
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{INDEX_FILE} has no weight_map") from None
    tensors: dict[str, TensorSlice] = {}
    for name in names:
        if "/" in str(name) or not (directory / str(name)).is_file():
            raise ValueError(f"weight file {name} is missing")
        tensors.update(read_header(directory / name))
    if missing := where.keys() - tensors.keys():
        raise ValueError(f"{where[min(missing)]} lacks {min(missing)}, which {INDEX_FILE} names")
    return tensors


def to_float32(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Decodes F32, F16 or BF16 bytes into a flat float32 array."""
    if dtype == "BF16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def from_float32(values: np.ndarray[Any, np.dtype[np.float32]], dtype: str) -> bytes:
    """Encodes float32 values, rounding to nearest even; raises ValueError for one beyond the range of F16."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        if (nan := np.isnan(values.reshape(-1))).any():  # the carry would turn some into zeros
            rounded[nan] = bits[nan] | 0x00400000
        return rounded.astype("<u4", copy=False).view("<u2")[1::2].tobytes()
    with np.errstate(over="raise"):
        try:
            return values.astype("<f4" if dtype == "F32" else "<f2").tobytes()
        except FloatingPointError:
            raise ValueError("a weight is too large for F16; use a base in BF16 or F32") from None


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
