"""The models a client can name, as OpenAI lists them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.tracebacks import describe
from tuneloom_gateway.routing.names import public_names
from tuneloom_gateway.routing.registry import Registry
from tuneloom_gateway.routing.resolution import Routing
from tuneloom_gateway.routing.served import ServedVersion

CONCURRENT_LOOK_UPS = 16
log = structlog.get_logger()


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
        self._told: set[str] = set()

    async def entry(self, name: str) -> ModelEntry:
        """One model by any form of its name."""
        choice = await self._routing.resolve(name)
        return ModelEntry.of(name, choice.versions[0])

    async def entries(self) -> list[ModelEntry]:
        """Every alias of every public model, as far as it can be served. A broken version leaves out itself only."""
        names = [name for model in await self._registry.models() for name in public_names(model)]
        slots = asyncio.Semaphore(CONCURRENT_LOOK_UPS)

        async def look_up(name: str) -> ModelEntry | None:
            async with slots:
                try:
                    return await self.entry(name)
                except (NotFound, InvalidArgument):
                    return None  # the alias has moved since the listing, or points to what cannot be served
                except Unavailable:
                    raise
                except Exception as error:
                    self._tell(name, error)
                    return None

        found = await asyncio.gather(*map(look_up, names))
        return [entry for entry in found if entry is not None]

    def _tell(self, name: str, error: Exception) -> None:
        """Once per name: lists are asked for all the time."""
        if name not in self._told:
            self._told.add(name)
            log.error("a model is broken and left out of the list", model=name, error=describe(error))
