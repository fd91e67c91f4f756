"""Public model names, and the error for one that means nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from tuneloom_client.single_flight import SingleFlight
from tuneloom_client.versions import Model
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.names import DEFAULT_ALIAS
from tuneloom_gateway.routing.registry import Registry

HINTS_SECONDS = 5.0
MOST_COMPARED = 200
MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a name means nothing. An error made of it each time holds no other request's traceback."""

    message: str

    def error(self) -> NotFound:
        return NotFound(self.message, reason="MODEL_NOT_FOUND", field="model")


class Hints:
    """Names that come near a wrong one. The list is asked for once in a while, however many names are wrong."""

    def __init__(self, registry: Registry, *, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._names: list[str] = []
        self._until = 0.0
        self._listing: SingleFlight[list[str]] = SingleFlight()

    async def unknown(self, reference: str, reason: str) -> Unknown:
        """What to say about a name, with those near it."""
        shown = reference[:MAX_NAME_CHARS]
        near = difflib.get_close_matches(shown, _worth_comparing(shown, await self._known()), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
        return Unknown(f"the model {shown!r} does not exist ({reason}); {hint}GET /v1/models lists all models")

    async def close(self) -> None:
        await self._listing.close()

    async def _known(self) -> list[str]:
        if self._clock() >= self._until:
            with suppress(TuneloomError):
                return await self._listing.run("", self._list)
        return self._names

    async def _list(self) -> list[str]:
        names = []
        for model in await self._registry.models():
            names += public_names(model) or [f"{model.id}:{model.latest_version}"]
        self._names, self._until = names, self._clock() + HINTS_SECONDS
        return names


def public_names(model: Model) -> list[str]:
    """What clients may call a model: "name" for the default alias, "name@alias" for the others."""
    return [
        model.id if alias == DEFAULT_ALIAS else f"{model.id}@{alias}"
        for alias in sorted(model.aliases, key=lambda alias: (alias != DEFAULT_ALIAS, alias))
    ]


def _worth_comparing(reference: str, names: Iterable[str]) -> list[str]:
    """Comparing is slow, and there may be thousands: those that begin alike first, all of them about as long."""
    near = [name for name in names if abs(len(name) - len(reference)) <= max(8, len(reference) // 2)]
    return sorted(near, key=lambda name: name[:2] != reference[:2])[:MOST_COMPARED]
