"""Which version answers, and where."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fakes import FakeRegistry
from tuneloom_client.versions import Version
from tuneloom_gateway.routing.choice import Choice, pick_endpoint
from tuneloom_gateway.routing.served import ServedVersion, served_version


@pytest.fixture
def versions(registry: FakeRegistry) -> tuple[ServedVersion, ServedVersion]:
    first, second = (served_version(Version.of(message)) for message in registry.versions["assistant"])
    return first, second


def test_by_weight(versions: tuple[ServedVersion, ServedVersion]) -> None:
    choice = Choice(versions, weights=(3.0, 1.0))
    picked = Counter(choice.pick(lambda point=step / 100: point).version for step in range(100))  # type: ignore[misc]
    assert picked == {versions[0].version: 75, versions[1].version: 25}
    assert choice.models == {"assistant"}


def test_one_version_needs_no_chance(versions: tuple[ServedVersion, ServedVersion]) -> None:
    def never() -> float:
        raise AssertionError

    assert Choice(versions[:1]).pick(never) is versions[0]


@pytest.mark.parametrize("weights", [(), (1.0,), (1.0, 0.0), (1.0, -1.0)])
def test_weights_that_mean_nothing(weights: tuple[float, ...], versions: tuple[ServedVersion, ServedVersion]) -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        Choice(versions, weights=weights)


@pytest.mark.parametrize(
    ("lost", "point", "picked"),
    [((), 0.0, "a"), ((), 0.34, "b"), ((), 0.99, "c"), (("a",), 0.0, "b"), (("a", "b", "c"), 0.0, "a")],
)
def test_an_endpoint_that_was_not_lost(lost: tuple[str, ...], point: float, picked: str) -> None:
    assert pick_endpoint(("a", "b", "c"), lost, lambda: point) == picked
