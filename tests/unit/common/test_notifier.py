from __future__ import annotations

import asyncio

from tuneloom_common.notifier import Notifier


async def test_a_notification_wakes_everyone_who_is_subscribed_to_its_key() -> None:
    notifier = Notifier()
    with notifier.subscribe("jobs/a") as first, notifier.subscribe("jobs/a") as second:
        waiting = [asyncio.create_task(changes.wait(60)) for changes in (first, second)]
        await asyncio.sleep(0)
        notifier.notify("jobs/a")
        await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_another_key_wakes_nobody() -> None:
    notifier = Notifier()
    with notifier.subscribe("jobs/a") as changes:
        waiting = asyncio.create_task(changes.wait(60))
        await asyncio.sleep(0)
        notifier.notify("jobs/b", "jobs/c")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()


async def test_what_changes_while_looking_is_not_missed() -> None:
    notifier = Notifier()
    with notifier.subscribe("a") as changes:
        notifier.notify("a")
        await asyncio.wait_for(changes.wait(60), 5)


async def test_one_notification_ends_one_wait() -> None:
    notifier = Notifier()
    with notifier.subscribe("a") as changes:
        notifier.notify("a")
        await changes.wait(60)
        waiting = asyncio.create_task(changes.wait(60))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()


async def test_silence_ends_with_the_timeout() -> None:
    with Notifier().subscribe("a") as changes:
        await asyncio.wait_for(changes.wait(0.001), 5)


async def test_who_leaves_leaves_no_trace() -> None:
    notifier = Notifier()
    with notifier.subscribe("a"), notifier.subscribe("a"):
        pass
    assert not notifier._subscribed
    notifier.notify("a")
    assert not notifier._subscribed
