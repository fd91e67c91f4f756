"""What the gateway asks the registry: three questions, which `tuneloom_client.RegistryClient` answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tuneloom_client.versions import Model, ModelEvent, Version


class Registry(Protocol):
    """Raises NotFound or InvalidArgument for the name at fault, Unavailable when the registry is at fault."""

    async def resolve(self, reference: str) -> Version:
        """The version a public name means now."""

    async def models(self, *, include_training_jobs: bool = False, at_most: int | None = None) -> list[Model]:
        """The public models by name."""

    async def watch(self, after_sequence: int) -> AsyncIterator[ModelEvent]:
        """Returns once the subscription is in force: no later change will be missing from the events."""

    async def close(self) -> None:
        """Ends all calls."""
