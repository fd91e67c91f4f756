"""Which tensors of a base a full fine-tune trained, and where the others come from.

A base may store more than its parameters: buffers, and weights that are tied to another one. A trainer knows a
tied pair by one name, and not always by the one that is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tuneloom_registry.weights.headers import FLOAT_TYPES, TensorSlice

Tensors = Mapping[str, TensorSlice]


@dataclass(frozen=True, slots=True)
class Coverage:
    """`renamed`: stored name -> the trained name of the same weight. `perhaps_tied`: untrained matrix -> trained
    ones of its shape; it is tied to the one that it equals in the base. `buffers`: copied from the base.
    `left_over`: trained under a name that the base does not know."""

    renamed: Mapping[str, str]
    perhaps_tied: Mapping[str, tuple[str, ...]]
    buffers: tuple[str, ...]
    left_over: tuple[str, ...]
    base_files: frozenset[str]
    """Files of the base whose weights are needed to tell and to copy."""


def of(stored: Tensors, trained: Tensors) -> Coverage:
    """From the tensors' names, types and shapes alone."""
    untrained = [tensor for name, tensor in stored.items() if name not in trained]
    unknown = [tensor for name, tensor in trained.items() if name not in stored]
    renamed = _renamed(untrained, unknown)
    perhaps_tied: dict[str, tuple[str, ...]] = {}
    buffers = []
    for tensor in untrained:
        if tensor.name in renamed:
            continue
        if matches := _same_shape(tensor, stored, trained):
            perhaps_tied[tensor.name] = matches
        else:
            buffers.append(tensor.name)
    needed = {*perhaps_tied, *buffers, *(name for names in perhaps_tied.values() for name in names)}
    return Coverage(
        renamed=renamed,
        perhaps_tied=perhaps_tied,
        buffers=tuple(buffers),
        left_over=tuple(tensor.name for tensor in unknown if tensor.name not in renamed.values()),
        base_files=frozenset(stored[name].file.name for name in needed),
    )


def _renamed(untrained: list[TensorSlice], unknown: list[TensorSlice]) -> dict[str, str]:
    """Pairs of one untrained and one unknown matrix of a shape that no other of them has."""
    here, there = (Counter(tensor.shape for tensor in tensors) for tensors in (untrained, unknown))
    names = {tensor.shape: tensor.name for tensor in unknown}
    return {
        tensor.name: names[tensor.shape]
        for tensor in untrained
        if len(tensor.shape) == 2 and here[tensor.shape] == there[tensor.shape] == 1
    }


def _same_shape(tensor: TensorSlice, stored: Tensors, trained: Tensors) -> tuple[str, ...]:
    """Vectors are never tied; a buffer of zeros may well equal a bias of zeros."""
    if len(tensor.shape) < 2 or tensor.dtype not in FLOAT_TYPES:
        return ()
    partners = (other for name, other in stored.items() if name in trained and other.dtype in FLOAT_TYPES)
    return tuple(other.name for other in partners if other.shape == tensor.shape)
