"""What long transfers tell, and how failed requests are repeated."""

from __future__ import annotations

import structlog

from tuneloom_common.objects.progress import EVERY_SECONDS, Progress
from tuneloom_common.objects.requests import Patience


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_long_transfer_tells_how_far_it_is_and_how_it_ended() -> None:
    clock = Clock()
    with structlog.testing.capture_logs() as logs, Progress("uploading X", 4_000_000_000, clock=clock) as progress:
        for _ in range(4):
            clock.now += EVERY_SECONDS / 2
            progress.add(1_000_000_000)
    assert [line["event"] for line in logs] == [
        "uploading X: 2.0 of 4.0 GB, 200 MB/s",
        "uploading X: 4.0 of 4.0 GB, 200 MB/s",
        "done: uploading X: 4.0 of 4.0 GB, 200 MB/s",
    ]


def test_a_short_transfer_says_nothing() -> None:
    with structlog.testing.capture_logs() as logs, Progress("uploading X", 10, clock=Clock()) as progress:
        progress.add(10)
    assert logs == []


def test_pauses_are_random_and_their_bound_grows() -> None:
    patience = Patience(tries=6, first_seconds=1, most_seconds=4)
    rounds = [list(patience.pauses()) for _ in range(200)]
    assert {len(pauses) for pauses in rounds} == {5}
    highest = [max(pauses[number] for pauses in rounds) for number in range(5)]
    for bound, high in zip((1, 2, 4, 4, 4), highest, strict=True):
        assert 0.8 * bound < high <= bound
    assert len({pauses[0] for pauses in rounds}) > 190
