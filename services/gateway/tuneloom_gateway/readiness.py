"""Whether the gateway could answer a request now."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

import aiohttp

from tuneloom_common.errors import TuneloomError
from tuneloom_gateway.registry import Registry

PROBE_TIMEOUT = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True, slots=True)
class Check:
    """One part the gateway needs; `problem` is empty when it works."""

    name: str
    problem: str = ""


class Readiness:
    """Asks the registry, and the engine when there is one fixed engine (hosted engines start on demand)."""

    def __init__(self, registry: Registry, session: aiohttp.ClientSession, *, engine_url: str) -> None:
        self._registry = registry
        self._session = session
        self._engine_url = engine_url

    async def checks(self) -> list[Check]:
        checks = [await _check("registry", self._registry.models(at_most=1))]
        if self._engine_url:
            checks.append(await _check("engine", self._probe_engine()))
        return checks

    async def _probe_engine(self) -> None:
        # Any answer will do: who answers at all is reachable, keys and routes are another matter.
        async with self._session.get(f"{self._engine_url}/v1/models", timeout=PROBE_TIMEOUT) as response:
            response.release()


async def _check(name: str, probe: Awaitable[object]) -> Check:
    try:
        await probe
    except TuneloomError as error:
        return Check(name, error.message)
    except (aiohttp.ClientError, TimeoutError):
        return Check(name, f"the {name} does not answer")
    return Check(name)
