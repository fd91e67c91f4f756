"""Packing loses nothing, splits nothing and overfills nothing."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from tuneloom_trainer.worker.data.packing import pack

CAPACITY = 64
lengths = st.lists(st.integers(1, CAPACITY), max_size=60)


@given(lengths)
def test_every_example_is_in_exactly_one_sequence_and_none_is_too_long(lengths: list[int]) -> None:
    groups = pack(lengths, CAPACITY)

    assert sorted(chain.from_iterable(groups)) == list(range(len(lengths)))
    assert all(groups)
    assert all(sum(lengths[index] for index in group) <= CAPACITY for group in groups)


@given(lengths)
def test_it_is_deterministic_and_close_to_the_optimum(lengths: list[int]) -> None:
    groups = pack(lengths, CAPACITY)

    assert groups == pack(lengths, CAPACITY)
    assert len(groups) <= 11 / 9 * -(-sum(lengths) // CAPACITY) + 6 / 9 + _big(lengths)


def _big(lengths: list[int]) -> int:
    """Examples above half the capacity, which need a sequence each whatever is done."""
    return sum(length * 2 > CAPACITY for length in lengths)


def test_gaps_are_filled_best_fit() -> None:
    assert sorted(map(sorted, pack([40, 50, 24, 14], 64))) == [[0, 2], [1, 3]]
    assert pack([], 64) == []
