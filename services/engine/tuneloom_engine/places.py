"""Places on this machine: who gets one, and who has to leave for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tuneloom_engine.replicas import Replica, State


class Places:
    """At most `limit` of the replicas have a place, those that start, run, stop or have failed.

    `leave` ends a replica and forgets it. Whoever asks first is served first.
    """

    def __init__(
        self, replicas: Mapping[str, Replica], *, limit: int, leave: Callable[[Replica, str], Awaitable[None]]
    ) -> None:
        self._replicas = replicas
        self._limit = limit
        self._leave = leave
        self._placing = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def take(self, replica: Replica, *, check_may_displace: Callable[[], None]) -> list[str]:
        """Waits for a place, or makes one: failed replicas go first, then the least recently used.

        Returns the names of working replicas that left. `check_may_displace` raises when none may.
        """
        displaced: list[str] = []
        replica.state = State.WAITING
        async with self._placing:
            while True:
                if self._any_free():
                    replica.has_place, replica.state = True, State.STARTING
                    return displaced
                elif victim := self._first_to_leave():
                    if victim.ready:
                        check_may_displace()
                        displaced.append(victim.name)
                    await self._leave(victim, f"its place is needed for {replica.name}")
                else:
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._any_free() or self._first_to_leave())

    async def notify(self) -> None:
        """A replica changed its state or is gone."""
        async with self._changed:
            self._changed.notify_all()

    def _any_free(self) -> bool:
        return sum(replica.has_place for replica in self._replicas.values()) < self._limit

    def _first_to_leave(self) -> Replica | None:
        """None while every replica with a place is starting."""
        candidates = [one for one in self._replicas.values() if one.has_place and one.state is not State.STARTING]
        return min(candidates, key=lambda one: (one.state is State.READY, one.last_used), default=None)
