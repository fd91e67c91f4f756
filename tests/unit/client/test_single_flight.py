from __future__ import annotations

import asyncio

import pytest

from tuneloom_client.single_flight import SingleFlight


class Work:
    """Starts are counted; an execution ends when the test says so."""

    def __init__(self) -> None:
        self.starts = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.starts += 1
        number = self.starts
        await self.go.wait()
        return number


async def running(flight: SingleFlight[int], key: str, work: Work) -> asyncio.Task[int]:
    task = asyncio.create_task(flight.run(key, work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_concurrent_calls_for_one_key_share_one_execution() -> None:
    flight, work = SingleFlight[int](), Work()
    same = [await running(flight, "a", work) for _ in range(3)]
    other = await running(flight, "b", work)
    work.go.set()
    assert await asyncio.gather(*same) == [1, 1, 1]
    assert await other == 2
    assert await flight.run("a", work) == 3


async def test_the_execution_outlives_the_caller_who_began_it() -> None:
    flight, work = SingleFlight[int](), Work()
    first, second = await running(flight, "a", work), await running(flight, "a", work)
    first.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await second == 1


async def test_later_callers_can_be_sent_to_a_fresh_execution() -> None:
    flight, work = SingleFlight[int](), Work()
    early = await running(flight, "a", work)
    flight.disown()
    late = await running(flight, "a", work)
    work.go.set()
    assert (await early, await late) == (1, 2)


async def test_a_failure_is_everybodys_and_not_remembered() -> None:
    flight = SingleFlight[int]()

    async def fail() -> int:
        raise LookupError("gone")

    for _ in range(2):
        with pytest.raises(LookupError):
            await flight.run("a", fail)


async def test_closing_ends_what_runs() -> None:
    flight, work = SingleFlight[int](), Work()
    task = await running(flight, "a", work)
    await flight.close()
    with pytest.raises(asyncio.CancelledError):
        await task
