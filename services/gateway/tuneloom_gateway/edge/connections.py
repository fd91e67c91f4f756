"""How many connections there may be, and which one goes when there are too many.

A connection counts as waiting while no request of it is being answered. When a place is needed the one that has
waited longest is closed, so that silent connections never shut out anybody who has something to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Connection(Protocol):
    """One client's connection. `deadline` is when it must have done what it is waited for."""

    address: str
    deadline: float

    def evict(self) -> None:
        """Closes it to make room."""

    def expire(self) -> None:
        """Closes it because its deadline has passed."""


@dataclass(slots=True)
class _Client:
    count: int = 0
    waiting: dict[Connection, None] = field(default_factory=dict)


class Connections:
    """All connections of a process, by client address. Waiting ones are kept in the order in which they began to."""

    def __init__(self, *, at_most: int, per_client: int, clock: Callable[[], float]) -> None:
        self._at_most = at_most
        self._per_client = per_client
        self._clock = clock
        self._count = 0
        self._clients: dict[str, _Client] = {}
        self._waiting: dict[Connection, None] = {}
        self._receiving: dict[Connection, None] = {}

    def __len__(self) -> int:
        return self._count

    def admit(self, connection: Connection) -> bool:
        """Takes a place, another one's if need be. False: all places are taken by requests that are being answered."""
        client = self._clients.get(connection.address)
        if client is not None and client.count >= self._per_client and not self._evict(client.waiting):
            return False
        if self._count >= self._at_most and not self._evict(self._waiting):
            return False
        client = self._clients.setdefault(connection.address, _Client())
        client.count += 1
        self._count += 1
        self.wait(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is closed, or about to be."""
        self.work(connection)
        client = self._clients[connection.address]
        client.count -= 1
        self._count -= 1
        if not client.count:
            del self._clients[connection.address]

    def wait(self, connection: Connection) -> None:
        """From now on it waits for its client."""
        if self._receiving:
            self._receiving.pop(connection, None)
        self._waiting[connection] = None
        self._clients[connection.address].waiting[connection] = None

    def receive(self, connection: Connection) -> None:
        """A body is on its way, which must arrive before the deadline; nobody takes the place meanwhile."""
        self._receiving[connection] = None

    def work(self, connection: Connection) -> None:
        """From now on its client waits for us."""
        if self._receiving:
            self._receiving.pop(connection, None)
        self._waiting.pop(connection, None)
        self._clients[connection.address].waiting.pop(connection, None)

    def sweep(self) -> None:
        """Expires the connections whose deadlines have passed."""
        now = self._clock()
        for connection in [one for one in (*self._waiting, *self._receiving) if one.deadline <= now]:
            connection.expire()

    @staticmethod
    def _evict(waiting: dict[Connection, None]) -> bool:
        oldest = next(iter(waiting), None)
        if oldest is None:
            return False
        oldest.evict()
        return True
