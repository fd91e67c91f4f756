"""Wakes watchers early, by key; they still poll, for what nobody told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Changes:
    """One watcher's view of a key. What is notified between two waits ends the second at once."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def wait(self, timeout_seconds: float) -> None:
        """Returns after the next notification since the last wait, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def notify(self) -> None:
        self._changed.set()


class Notifier:
    """Keys are resource names; nobody wakes for a key that was not subscribed to."""

    def __init__(self) -> None:
        self._subscribed: defaultdict[str, set[Changes]] = defaultdict(set)
        self._carriers: list[Callable[[str], None]] = []

    def notify(self, *keys: str) -> None:
        """Wakes everyone who is subscribed to one of the keys, in other processes too where there is a carrier."""
        self.wake(*keys)
        for carry in self._carriers:
            for key in keys:
                carry(key)

    def wake(self, *keys: str) -> None:
        """Wakes those in this process alone."""
        for key in keys:
            for changes in self._subscribed.get(key, ()):
                changes.notify()

    def wake_all(self) -> None:
        """For a carrier that may have missed something."""
        self.wake(*self._subscribed)

    @contextmanager
    def carried(self, carry: Callable[[str], None]) -> Iterator[None]:
        """Meanwhile `carry` gets every key that is notified here, and calls `wake` with those of elsewhere."""
        self._carriers.append(carry)
        try:
            yield
        finally:
            self._carriers.remove(carry)

    @contextmanager
    def subscribe(self, key: str) -> Iterator[Changes]:
        """Subscribe first, then look, then wait: nothing that changes while looking is missed."""
        changes = Changes()
        self._subscribed[key].add(changes)
        try:
            yield changes
        finally:
            self._subscribed[key].discard(changes)
            if not self._subscribed[key]:
                del self._subscribed[key]
