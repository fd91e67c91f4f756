"""Who may answer: the served versions behind a public name, by weight, and the endpoints of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tuneloom_gateway.routing.served import ServedVersion

Random = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Choice:
    """At least one version, with a weight above 0 each. An alias means one version; its weight is of no matter."""

    versions: tuple[ServedVersion, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.versions) != len(self.weights) or not self.versions or min(self.weights) <= 0:
            raise ValueError("every version of a choice needs a weight above 0")

    @property
    def models(self) -> frozenset[str]:
        return frozenset(version.model for version in self.versions)

    def pick(self, random: Random) -> ServedVersion:
        """One version, in proportion to the weights. `random` gives numbers from 0 up to but not including 1."""
        if len(self.versions) == 1:
            return self.versions[0]
        point = random() * sum(self.weights)
        passed = accumulate(self.weights)
        return next(version for version, edge in zip(self.versions, passed, strict=True) if point < edge)


def pick_endpoint(urls: Sequence[str], lost: Sequence[str], random: Random) -> str:
    """Any endpoint that was not lost during this request, or any at all: it may be back."""
    if len(urls) == 1:
        return urls[0]
    left = [url for url in urls if url not in lost] or urls
    return left[int(random() * len(left))]
