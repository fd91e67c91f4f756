"""How connections come in: with TLS they have a place, and make room for others, before their handshakes are over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneloom_common.tls import Accepted
from tuneloom_gateway.edge.connections import Connections
from tuneloom_gateway.edge.protocol import LimitedProtocol
from tuneloom_gateway.edge.refusals import ProtocolLimits


@dataclass(frozen=True, slots=True)
class Entrance:
    """Makes the protocols of a process, all within the same limits. The options are uvicorn's."""

    limits: ProtocolLimits
    connections: Connections
    count_refusal: Callable[[str], None]

    def __call__(self, *, arrived: Callable[[], None] | None = None, **options: Any) -> LimitedProtocol:
        return LimitedProtocol(
            **options,
            limits=self.limits,
            connections=self.connections,
            count_refusal=self.count_refusal,
            arrived=arrived,
        )

    def admit(self, accepted: Accepted, **options: Any) -> LimitedProtocol | None:
        """For a connection whose handshake is yet to come. None: all places are taken by requests being answered."""
        arrival = Arrival(accepted, self.connections, self.count_refusal)
        if not self.connections.admit(arrival):
            self.count_refusal("too_many_connections")
            return None
        accepted.on_shaken = arrival.leave
        return self(arrived=arrival.leave, **options)


class Arrival:
    """The place of a connection during its handshake, which has a deadline of its own."""

    deadline = math.inf

    def __init__(self, accepted: Accepted, connections: Connections, count_refusal: Callable[[str], None]) -> None:
        self.address = accepted.address
        self._accepted = accepted
        self._all = connections
        self._count_refusal = count_refusal
        self._left = False

    def leave(self) -> None:
        """The handshake is over, whatever came of it."""
        if not self._left:
            self._left = True
            self._all.leave(self)

    def evict(self) -> None:
        self._count_refusal("evicted")
        self.expire()

    def expire(self) -> None:
        self.leave()
        self._accepted.end()
