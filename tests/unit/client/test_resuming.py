from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.unit.client.conftest import Clock
from tuneloom_client.registry import REPEATABLE, RegistryClient
from tuneloom_client.resuming import resumed
from tuneloom_client.retries import retry_config
from tuneloom_client.trainer import REPEATABLE as TRAINER_REPEATABLE
from tuneloom_common.errors import Unavailable


@dataclass(frozen=True)
class Event:
    sequence: int


class Script:
    """Streams that each give some events and then break, or end when nothing is left to play."""

    def __init__(self, *streams: list[int]) -> None:
        self.streams = list(streams)
        self.asked: list[int] = []

    async def open(self, after: int) -> AsyncIterator[Event]:
        self.asked.append(after)
        if not self.streams:
            return
        for sequence in self.streams.pop(0):
            yield Event(sequence)
        raise Unavailable("broke off")


async def collected(script: Script, clock: Clock, *, patience: float = 120) -> list[int]:
    stream = resumed(
        script.open, after=0, patience_seconds=patience, on_wait=lambda _: None, clock=clock, sleep=clock.sleep
    )
    return [event.sequence async for event in stream]


async def test_a_broken_stream_goes_on_after_the_last_event(clock: Clock) -> None:
    script = Script([1, 2], [], [3])
    assert await collected(script, clock) == [1, 2, 3]
    assert script.asked == [0, 2, 2, 3]


async def test_a_stream_that_never_began_is_given_up_soon(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        await collected(Script(*[[]] * 100), clock)
    assert clock.now <= 5


async def test_a_stream_that_was_heard_is_waited_for(clock: Clock) -> None:
    script = Script([1], *[[]] * 200)
    with pytest.raises(Unavailable):
        await collected(script, clock, patience=60)
    assert 55 <= clock.now <= 60


@pytest.mark.parametrize("word", ["Cancel", "Pause", "Resume", "SetAlias", "Upload", "Watch"])
def test_what_acts_anew_is_not_repeated(word: str) -> None:
    assert not [method for method in (*REPEATABLE, *TRAINER_REPEATABLE) if word in method]


def test_the_retry_config_is_grpcs_own_form() -> None:
    config = json.loads(retry_config("a.B", ["C"]))
    assert config["methodConfig"][0]["name"] == [{"service": "a.B", "method": "C"}]
    assert json.loads(RegistryClient.retries)["methodConfig"][0]["retryPolicy"]["maxAttempts"] == 4
