"""What the engine behind a model is doing, while somebody waits for its first word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from tuneloom_cli.terminal import duration
from tuneloom_client.registry import RegistryClient
from tuneloom_common.errors import TuneloomError
from tuneloom_common.kinds import Kind
from tuneloom_common.names import EngineName

ASK_SECONDS = 5.0
_WORDS = {
    "fetching": "fetching the model's files for the engine",
    "waiting": "waiting for a free place for the engine",
    "starting": "starting the engine",
    "stopping": "the engine is stopping; the next one starts after it",
}


@dataclass(frozen=True, slots=True)
class EngineState:
    """`seconds` since the start was asked for; `expected_seconds` is what earlier starts took, when known."""

    state: str
    seconds: float | None = None
    expected_seconds: float | None = None
    error: str = ""
    log: str = ""

    @classmethod
    def of(cls, body: dict[str, Any]) -> EngineState:
        return cls(
            state=str(body.get("state", "")),
            seconds=body.get("seconds"),
            expected_seconds=body.get("expected_seconds"),
            error=str(body.get("error", "")),
            log=str(body.get("log", "")),
        )

    @property
    def sentence(self) -> str:
        """For somebody who waits."""
        if self.state == "ready":
            return "the engine is ready and reads the prompt"
        if self.state == "failed":
            return f"the engine failed: {self.error}" + (f"\n{self.log}" if self.log else "")
        words = _WORDS.get(self.state, f"the engine is {self.state}")
        if self.seconds is None:
            return words
        expected = f" of about {duration(self.expected_seconds)}" if self.expected_seconds else ""
        return f"{words}: {duration(self.seconds)}{expected}"


class Engines:
    """The engine host. It is asked for its own view only: nothing starts by it."""

    def __init__(self, session: aiohttp.ClientSession, registry: RegistryClient) -> None:
        self._session = session
        self._registry = registry

    async def engine_of(self, version: str) -> str:
        """The engine that serves a version: an adapter's base, else its own. Empty when nobody can tell."""
        try:
            found = await self._registry.resolve(version)
            base = found.manifest.base if found.kind is Kind.ADAPTER else None
        except TuneloomError:
            return ""
        return str(EngineName.of(base.model, base.digest)) if base else found.engine_name

    async def state(self, engine: str) -> EngineState | None:
        """None when the host does not answer, or knows no such engine."""
        try:
            async with self._session.get(
                f"/replicas/{engine}", timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)
            ) as response:
                return EngineState.of(await response.json()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
