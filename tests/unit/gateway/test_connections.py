"""Which connection goes when there are too many."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from tuneloom_gateway.edge.connections import Connections
from tuneloom_gateway.edge.descriptors import Descriptors


@dataclass(eq=False)
class Line:
    all: Connections
    address: str = "10.0.0.1"
    deadline: float = math.inf
    ended: list[str] = field(default_factory=list)

    def evict(self) -> None:
        self.ended.append("evicted")
        self.all.leave(self)

    def expire(self) -> None:
        self.ended.append("expired")
        self.all.leave(self)


def connections(at_most: int = 3, per_client: int = 2) -> Connections:
    return Connections(at_most=at_most, per_client=per_client, clock=lambda: 100.0)


def test_the_one_that_waited_longest_goes() -> None:
    everyone = connections()
    lines = [Line(everyone, address) for address in ("a", "b", "c", "d")]
    assert all(everyone.admit(one) for one in lines[:3])
    everyone.work(lines[0])
    everyone.wait(lines[0])  # asked something in between
    assert everyone.admit(lines[3])
    assert [one.ended for one in lines] == [[], ["evicted"], [], []]
    assert len(everyone) == 3


def test_a_client_makes_room_for_itself() -> None:
    everyone = connections(at_most=10)
    lines = [Line(everyone, address) for address in ("b", "a", "a", "a")]
    assert all(everyone.admit(one) for one in lines)
    assert [one.ended for one in lines] == [[], ["evicted"], [], []]


@pytest.mark.parametrize(("at_most", "per_client"), [(2, 9), (9, 2)])
def test_requests_that_are_answered_stay(at_most: int, per_client: int) -> None:
    everyone = connections(at_most, per_client)
    lines = [Line(everyone) for _ in range(3)]
    for one in lines[:2]:
        assert everyone.admit(one)
        everyone.work(one)
    assert not everyone.admit(lines[2])
    everyone.leave(lines[0])
    assert everyone.admit(lines[2])
    assert len(everyone) == 2


def test_deadlines_of_those_who_wait() -> None:
    everyone = connections(at_most=9, per_client=9)
    lines = [Line(everyone, deadline=deadline) for deadline in (99, 100, 101, 50)]
    for one in lines:
        everyone.admit(one)
    everyone.work(lines[3])
    everyone.sweep()
    assert [one.ended for one in lines] == [["expired"], ["expired"], [], []]


@pytest.mark.parametrize(("limit", "connections", "backlog"), [(1024, 448, 64), (64, 8, 16), (1 << 20, 10_000, 2048)])
def test_half_of_the_descriptors_is_for_engines(limit: int, connections: int, backlog: int) -> None:
    found = Descriptors(limit)
    assert (found.connections, found.backlog) == (connections, backlog)
