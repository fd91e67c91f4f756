from __future__ import annotations

import asyncio

import pytest

from tuneloom_common.bell import Bell


async def test_a_ring_wakes_everyone_who_waits() -> None:
    bell = Bell()
    waiting = [asyncio.create_task(bell.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_a_ring_that_nobody_hears_is_not_kept() -> None:
    bell = Bell()
    bell.ring()
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    bell.ring()
    await asyncio.wait_for(waiting, 5)


async def test_silence_ends_with_the_timeout() -> None:
    await asyncio.wait_for(Bell().wait(0.001), 5)


async def test_who_stops_waiting_leaves_no_trace() -> None:
    bell = Bell()
    gone = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.wait_for(waiting, 5)


async def test_a_ring_while_looking_is_not_missed() -> None:
    bell = Bell()
    rings = bell.rings
    bell.ring()
    async with asyncio.timeout(1):
        await bell.wait(60, since=rings)
