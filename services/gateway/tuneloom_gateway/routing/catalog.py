"""The models a client can name, as OpenAI lists them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_gateway.registry import Registry
from tuneloom_gateway.routing.names import public_names
from tuneloom_gateway.routing.resolution import Routing
from tuneloom_gateway.routing.served import ServedVersion

CONCURRENT_LOOK_UPS = 16


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """OpenAI's fields, plus `version`, `kind` and `digest`."""

    id: str
    created: int
    version: str
    kind: str
    digest: str
    object: str = "model"
    owned_by: str = "tuneloom"

    @classmethod
    def of(cls, name: str, served: ServedVersion) -> ModelEntry:
        return cls(name, served.created, served.version, served.kind, served.digest)


class Catalog:
    """Public names and what they mean now."""

    def __init__(self, registry: Registry, routing: Routing) -> None:
        self._registry = registry
        self._routing = routing

    async def entry(self, name: str) -> ModelEntry:
        """One model by any form of its name."""
        return ModelEntry.of(name, await self._routing.resolve(name))

    async def entries(self) -> list[ModelEntry]:
        """Every alias of every public model, as far as it can be served."""
        names = [name for model in await self._registry.models() for name in public_names(model)]
        slots = asyncio.Semaphore(CONCURRENT_LOOK_UPS)

        async def look_up(name: str) -> ModelEntry | None:
            async with slots:
                # An alias may have moved since the listing, or point to what cannot be served.
                with suppress(NotFound, InvalidArgument):
                    return await self.entry(name)
                return None

        found = await asyncio.gather(*map(look_up, names))
        return [entry for entry in found if entry is not None]
