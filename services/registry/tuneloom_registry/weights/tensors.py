"""Tensors of safetensors files as byte ranges: read, convert and copy them without ever holding a model in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tuneloom_registry.weights.headers import ITEM_BYTES, TensorSlice

COPY_BYTES = 8 << 20
COMPARED_ITEMS = 1 << 20


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
    row_bytes = columns * ITEM_BYTES[tensor.dtype]
    per_block = max(1, block_bytes // max(1, row_bytes))
    with tensor.file.open("rb") as source:
        source.seek(tensor.start)
        for first in range(0, rows, per_block):
            end = min(rows, first + per_block)
            yield first, end, source.read((end - first) * row_bytes)


def equal_values(one: TensorSlice, other: TensorSlice) -> bool:
    """Whether two tensors of floats hold the same numbers, in whatever types they are stored."""
    if one.shape != other.shape:
        return False
    blocks = zip(_flat_blocks(one), _flat_blocks(other), strict=True)
    return all(np.array_equal(here, there) for here, there in blocks)


def _flat_blocks(tensor: TensorSlice) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    flat = replace(tensor, shape=(math.prod(tensor.shape), 1))
    for _, _, data in row_blocks(flat, block_bytes=ITEM_BYTES[tensor.dtype] * COMPARED_ITEMS):
        yield to_float32(data, tensor.dtype)


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
