from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
import sqlalchemy.exc

from tuneloom_common.attempts import Slots, keep_lease, patiently, while_held
from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_common.notifier import Notifier
from tuneloom_common.patience import error_line
from tuneloom_common.queue import LeaseLost

AWAY = Unavailable("the service's database does not answer")


class Work:
    """A queue in memory; `failing` errors come first."""

    def __init__(self, *items: str, failing: tuple[Exception, ...] = ()) -> None:
        self.items = list(items)
        self.failing = list(failing)
        self.raising: dict[str, Exception] = {"doomed": AWAY, "buggy": KeyError("x")}
        self.notifier = Notifier()
        self.done: list[str] = []
        self.seen: list[set[str]] = []
        self.changed = asyncio.Event()

    async def claim(self, mine: Collection[str]) -> str | None:
        self.seen.append(set(mine))
        if self.failing:
            raise self.failing.pop(0)
        return self.items.pop(0) if self.items else None

    async def process(self, item: str) -> None:
        await asyncio.sleep(0)
        self.done.append(item)
        self.changed.set()
        if item in self.raising:
            raise self.raising[item]

    async def run_until(self, *done: str, slots: int = 1) -> None:
        running = asyncio.create_task(
            Slots(
                count=slots,
                claim=self.claim,
                process=self.process,
                id_of=str,
                notifier=self.notifier,
                topic="work",
            ).run()
        )
        async with asyncio.timeout(5):
            while self.done != list(done):
                self.changed.clear()
                await self.changed.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_slots_work_through_what_there_is() -> None:
    await Work("a", "b", "c").run_until("a", "b", "c", slots=2)


async def test_a_claim_names_what_this_process_holds() -> None:
    work = Work("a", "b")
    await work.run_until("a", "b", slots=2)
    assert {"a"} in work.seen


async def test_trouble_with_the_database_or_one_item_ends_no_slot() -> None:
    work = Work("doomed", "buggy", "a", failing=(LeaseLost(),))
    await work.run_until("doomed", "buggy", "a")
    assert work.seen[-1] == set()


async def test_new_work_is_noticed_at_once() -> None:
    work = Work()

    async def bring() -> None:
        await asyncio.sleep(0.01)
        work.items.append("late")
        work.notifier.notify("work")

    await asyncio.gather(work.run_until("late"), bring())


async def test_work_ends_with_its_lease() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def lose() -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        await while_held(work(), keep_lease(lose, every_seconds=60))
    assert ended.is_set()


async def test_work_that_ends_gives_its_result_or_error() -> None:
    async def beat() -> None:
        pass

    async def answer() -> int:
        return 42

    async def fail() -> int:
        raise NotFound("x")

    assert await while_held(answer(), keep_lease(beat, every_seconds=60)) == 42
    with pytest.raises(NotFound):
        await while_held(fail(), keep_lease(beat, every_seconds=60))


async def test_work_goes_on_while_the_database_is_away() -> None:
    troubles: list[Exception] = [AWAY, Unavailable("x")]
    back = asyncio.Event()

    async def beat() -> None:
        if troubles:
            raise troubles.pop()
        back.set()

    await asyncio.wait_for(while_held(back.wait(), keep_lease(beat, every_seconds=60)), 5)


async def test_a_database_that_is_away_is_waited_out() -> None:
    troubles: list[Exception] = [AWAY, Unavailable("x")]

    async def call() -> str:
        if troubles:
            raise troubles.pop()
        return "done"

    assert await patiently(call, what="call") == "done"
    troubles.append(AWAY)
    with pytest.raises(Unavailable):
        await patiently(call, what="call", seconds=0)


async def test_other_errors_are_not_waited_out() -> None:
    async def call() -> None:
        raise NotFound("x")

    with pytest.raises(NotFound):
        await patiently(call, what="call")


def test_a_database_error_is_told_without_what_it_carried() -> None:
    lost = sqlalchemy.exc.OperationalError("INSERT INTO t VALUES (?)", ("a secret",), Exception("database is locked"))
    assert error_line(lost) == "database is locked"


async def test_an_error_while_a_slot_is_cancelled_does_not_revive_it() -> None:
    work = Work("a", "b", "c")
    entered = asyncio.Event()

    async def process(item: str) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LeaseLost

    slots = Slots(count=1, claim=work.claim, process=process, id_of=str, notifier=work.notifier, topic="work")
    running = asyncio.create_task(slots.run())
    await entered.wait()
    running.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert work.items == ["b", "c"]


async def test_without_slots_the_work_is_left_to_others() -> None:
    work = Work("a")
    slots = Slots(count=0, claim=work.claim, process=work.process, id_of=str, notifier=work.notifier, topic="work")
    running = asyncio.create_task(slots.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    assert work.seen == []
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_lease_is_kept_until_the_work_has_ended() -> None:
    order: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            order.append("work")

    async def keep() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("lease")

    running = asyncio.create_task(while_held(work(), keep()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert order == ["work", "lease"]
