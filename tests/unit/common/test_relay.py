"""Processes on one PostgreSQL database wake each other; each Database here stands for a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.databases.cluster import Cluster
from tuneloom_common.database import open_database
from tuneloom_common.notifier import Notifier

REGISTRY = "tuneloom_registry.migrations"


@pytest.fixture
async def name(postgres: Cluster) -> AsyncIterator[str]:
    name = postgres.new_database()
    yield name
    postgres.drop(name)


@pytest.fixture
async def two(postgres: Cluster, name: str) -> AsyncIterator[tuple[Notifier, Notifier]]:
    async with AsyncExitStack() as stack:
        notifiers = Notifier(), Notifier()
        for notifier in notifiers:
            database = await open_database(postgres.url(name), migrations=REGISTRY)
            stack.push_async_callback(database.dispose)
            await stack.enter_async_context(database.relayed(notifier))
        await _hear_each_other(*notifiers)
        yield notifiers


async def _hear_each_other(one: Notifier, other: Notifier) -> None:
    for speaker, listener in ((one, other), (other, one)):
        with listener.subscribe("test") as heard:
            async with asyncio.timeout(20):
                while not heard._changed.is_set():
                    speaker.notify("test")
                    await asyncio.sleep(0.02)


async def test_a_word_of_one_process_wakes_watchers_in_the_other(two: tuple[Notifier, Notifier]) -> None:
    here, there = two
    with there.subscribe("jobs/a") as told, there.subscribe("jobs/b") as silent:
        here.notify("jobs/a", "jobs/c")
        async with asyncio.timeout(5):
            await told.wait(60)
        assert not silent._changed.is_set()


async def test_nobody_is_woken_twice_by_its_own_word(two: tuple[Notifier, Notifier]) -> None:
    here, there = two
    with here.subscribe("a") as mine, there.subscribe("b") as end:
        here.notify("a")
        await mine.wait(60)
        here.notify("b")  # sent later, so the word before it is over when this is heard
        async with asyncio.timeout(5):
            await end.wait(60)
        assert not mine._changed.is_set()


async def test_words_after_a_cut_are_heard_and_what_was_missed_is_looked_for(
    postgres: Cluster, name: str, two: tuple[Notifier, Notifier]
) -> None:
    here, there = two
    with there.subscribe("quiet") as quiet:
        postgres.cut(name)
        async with asyncio.timeout(10):
            await quiet.wait(60)  # nobody said it: it looks when it listens again
    await _hear_each_other(here, there)


async def test_a_word_that_could_not_be_sent_is_sent_later(
    postgres: Cluster, name: str, two: tuple[Notifier, Notifier]
) -> None:
    here, there = two
    postgres.cut(name)
    with there.subscribe("late") as late:
        async with asyncio.timeout(10):
            await late.wait(60)  # listening again
            here.notify("late")
            await late.wait(60)
