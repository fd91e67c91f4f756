"""Model names to targets, remembered for as long as they are known to be true."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tuneloom_client.single_flight import SingleFlight
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_gateway.registry import Registry
from tuneloom_gateway.routing.names import unknown_model
from tuneloom_gateway.routing.served import ServedVersion, served_version

MAX_ENTRIES = 10_000
_NAME = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class _Entry:
    served: ServedVersion
    immutable: bool
    time: float


class Routing:
    """Asks the registry once per name. `clock` counts seconds from anywhere.

    While the registry's watch stream is live an entry is true until an event says otherwise. While it is
    down, names that can move are true for `stale_seconds` more.
    """

    def __init__(self, registry: Registry, *, stale_seconds: float, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._look_ups: SingleFlight[ServedVersion] = SingleFlight()
        self._generation = 0
        self._live = False
        self._lost_at = -math.inf

    async def resolve(self, reference: str) -> ServedVersion:
        """The served of a public model name. Raises NotFound with the nearest names."""
        entry = self._entries.get(reference)
        if entry is not None and self._is_true(entry):
            return entry.served
        return await self._look_ups.run(reference, partial(self._look_up, reference))

    def live(self) -> None:
        """The watch stream has begun: what was learned before it may be outdated."""
        self._live = True
        self._entries.clear()
        self._outdate()

    def lost(self) -> None:
        """The watch stream has ended: changes go unnoticed from now on."""
        if self._live:
            self._live = False
            self._lost_at = self._clock()

    def changed(self, model: str) -> None:
        """Something about this model ("models/{model}") is different."""
        model_id = model.removeprefix("models/")
        outdated = [name for name, entry in self._entries.items() if entry.served.model == model_id]
        for name in outdated:
            del self._entries[name]
        self._outdate()

    async def close(self) -> None:
        await self._look_ups.close()

    def _outdate(self) -> None:
        # An answer that is on its way may have been read before the change.
        self._generation += 1
        self._look_ups.disown()

    def _is_true(self, entry: _Entry) -> bool:
        if self._live or entry.immutable:
            return True
        return self._clock() - max(entry.time, self._lost_at) < self._stale_seconds

    async def _look_up(self, reference: str) -> ServedVersion:
        if not _NAME.fullmatch(reference):
            raise await unknown_model(self._registry, reference[:200], "names are 1-200 printable characters")
        generation, asked_at = self._generation, self._clock()
        try:
            version = await self._registry.resolve(reference)
        except (NotFound, InvalidArgument) as error:
            raise await unknown_model(self._registry, reference, error.message) from None
        served = served_version(version)
        if generation == self._generation:
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            self._entries[reference] = _Entry(served, _is_immutable(reference), asked_at)
        return served


def _is_immutable(reference: str) -> bool:
    """`name:version`, `name@sha256:…` and engine names never mean another version; aliases do."""
    return ":" in reference or "--" in reference
