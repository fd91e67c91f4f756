"""Every sequence once an epoch, in steps that are the same whatever the number of ranks."""

from __future__ import annotations

from itertools import chain, islice

import pytest

from tuneloom_trainer.worker.data.order import MicroBatch, Share, steps

pytestmark = pytest.mark.worker


def first(
    count: int, *, seed: int = 1, batch_size: int = 3, accumulation: int = 1, done: int = 0
) -> list[list[MicroBatch]]:
    return list(islice(steps(11, seed=seed, batch_size=batch_size, accumulation=accumulation, done=done), count))


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_every_epoch_visits_every_sequence_once_in_an_order_of_its_own(seed: int) -> None:
    batches = [batch for (batch,) in first(12, seed=seed)]
    epochs = [tuple(chain(*batches[start : start + 4])) for start in (0, 4, 8)]

    assert [len(batch) for batch in batches[:4]] == [3, 3, 3, 2]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len(set(epochs)) == 3


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("done", [1, 3, 4, 7, 8])
def test_the_order_goes_on_from_any_step(done: int, accumulation: int) -> None:
    straight = first(12, accumulation=accumulation)

    assert first(12 - done, accumulation=accumulation, done=done) == straight[done:]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 3), (4, 1), (11, 2)])
def test_the_ranks_shares_are_the_whole_step(world_size: int, batch_size: int, accumulation: int) -> None:
    for step in first(9, batch_size=batch_size, accumulation=accumulation):
        shares = [[Share(rank, world_size).of(batch) for batch in step] for rank in range(world_size)]

        for number, batch in enumerate(step):
            assert sorted(chain(*(share[number] for share in shares))) == sorted(batch)
            sizes = [len(share[number]) for share in shares]
            assert max(sizes) - min(sizes) <= 1
