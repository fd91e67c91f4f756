from __future__ import annotations

import pytest

from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_common.patience import patient


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_restart_is_waited_out(clock: Clock) -> None:
    answers = iter([Unavailable("gone"), Unavailable("gone"), None])

    async def call() -> str:
        if error := next(answers):
            raise error
        return "back"

    assert await patient(call, what="call", clock=clock, sleep=clock.sleep) == "back"
    assert clock.slept == [0.2, 0.4]


async def test_patience_ends_with_the_last_error(clock: Clock) -> None:
    async def call() -> None:
        raise Unavailable("gone")

    with pytest.raises(Unavailable, match="gone"):
        await patient(call, seconds=20, what="call", clock=clock, sleep=clock.sleep)
    assert 10 < clock.now <= 20
    assert max(clock.slept) == 5.0


async def test_what_waiting_cannot_mend_is_raised_at_once(clock: Clock) -> None:
    async def call() -> None:
        raise NotFound("no such thing")

    with pytest.raises(NotFound):
        await patient(call, what="call", clock=clock, sleep=clock.sleep)
    assert clock.slept == []


async def test_what_may_pass_is_the_callers_to_say(clock: Clock) -> None:
    answers = iter([TimeoutError(), None])

    async def call() -> str:
        if error := next(answers):
            raise error
        return "back"

    assert await patient(call, what="call", passing=(TimeoutError,), clock=clock, sleep=clock.sleep) == "back"


async def test_for_ever_is_longer_than_a_restart(clock: Clock) -> None:
    async def call() -> str:
        if clock.now < 3600:
            raise Unavailable("gone")
        return "back"

    assert await patient(call, what="call", seconds=None, clock=clock, sleep=clock.sleep) == "back"
