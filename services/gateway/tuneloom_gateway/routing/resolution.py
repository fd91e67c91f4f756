"""Model names to choices, remembered for as long as they are known to be true; wrong names too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tuneloom_client.single_flight import SingleFlight
from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.names import Reference
from tuneloom_gateway.routing.choice import Choice
from tuneloom_gateway.routing.names import Hints, Unknown
from tuneloom_gateway.routing.registry import Registry
from tuneloom_gateway.routing.served import served_version

MAX_ENTRIES = 10_000
MAX_UNKNOWN = 2_000
# A wrong name is forgotten by itself too: nothing tells of a model that was restored from a backup.
UNKNOWN_SECONDS = 30.0
CONCURRENT_LOOK_UPS = 16
MAX_WAITING_LOOK_UPS = 1000


@dataclass(frozen=True, slots=True)
class _Entry:
    meaning: Choice | Unknown
    parent: str
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
        self._known: dict[str, _Entry] = {}
        self._unknown: dict[str, _Entry] = {}
        self._hints = Hints(registry, clock=clock)
        self._look_ups: SingleFlight[Choice | Unknown] = SingleFlight()
        self._slots = asyncio.Semaphore(CONCURRENT_LOOK_UPS)
        self._waiting = 0
        self._generation = 0
        self._live = False
        self._lost_at = -math.inf

    async def resolve(self, reference: str) -> Choice:
        """What a public model name means. Raises NotFound with the nearest names."""
        entry = self._known.get(reference) or self._unknown.get(reference)
        if entry is not None and self._is_true(entry):
            meaning = entry.meaning
        else:
            meaning = await self._look_ups.run(reference, partial(self._look_up, reference))
        if isinstance(meaning, Unknown):
            raise meaning.error()
        return meaning

    def live(self) -> None:
        """The watch stream has begun: what was learned before it may be outdated."""
        self._live = True
        self._known.clear()
        self._unknown.clear()
        self._outdate()

    def lost(self) -> None:
        """The watch stream has ended: changes go unnoticed from now on."""
        if self._live:
            self._live = False
            self._lost_at = self._clock()

    def changed(self, model: str) -> None:
        """Something about this model ("models/{model}") is different."""
        for entries in (self._known, self._unknown):
            for name in [name for name, entry in entries.items() if entry.parent == model]:
                del entries[name]
        self._outdate()

    async def close(self) -> None:
        await self._look_ups.close()
        await self._hints.close()

    def _outdate(self) -> None:
        # An answer that is on its way may have been read before the change.
        self._generation += 1
        self._look_ups.disown()

    def _is_true(self, entry: _Entry) -> bool:
        if isinstance(entry.meaning, Unknown) and self._clock() - entry.time >= UNKNOWN_SECONDS:
            return False
        if self._live or entry.immutable:
            return True
        return self._clock() - max(entry.time, self._lost_at) < self._stale_seconds

    async def _look_up(self, reference: str) -> Choice | Unknown:
        try:
            parsed = Reference.parse(reference)
        except InvalidArgument as error:  # nobody needs to be asked, and the next name is wrong in another way
            return await self._hints.unknown(reference, error.message[:200])
        generation, asked_at = self._generation, self._clock()
        try:
            meaning: Choice | Unknown = await self._ask(reference)
        except (NotFound, InvalidArgument) as error:
            if error.reason == "MODEL_NOT_SERVABLE":
                raise
            meaning = await self._hints.unknown(reference, error.message)
        if generation == self._generation:
            known = isinstance(meaning, Choice)
            entries, at_most = (self._known, MAX_ENTRIES) if known else (self._unknown, MAX_UNKNOWN)
            entries.pop(reference, None)
            if len(entries) >= at_most:
                del entries[next(iter(entries))]
            entries[reference] = _Entry(meaning, parsed.parent, known and parsed.immutable, asked_at)
        return meaning

    async def _ask(self, reference: str) -> Choice:
        """The registry is asked a few names at a time: wrong ones must not keep the right ones waiting for long."""
        if self._waiting >= MAX_WAITING_LOOK_UPS:
            raise Unavailable("too many model names are being looked up; try again shortly", reason="LOOK_UPS_BUSY")
        self._waiting += 1
        try:
            async with self._slots:
                return Choice((served_version(await self._registry.resolve(reference)),))
        finally:
            self._waiting -= 1
