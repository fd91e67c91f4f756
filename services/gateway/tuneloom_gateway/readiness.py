"""Whether the gateway could answer a request now."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from tuneloom_client.single_flight import SingleFlight
from tuneloom_common.errors import TuneloomError
from tuneloom_gateway.routing.registry import Registry

TRUE_SECONDS = 1.0
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=3)


@dataclass(frozen=True, slots=True)
class Check:
    """One part the gateway needs; `problem` is empty when it works."""

    name: str
    problem: str = ""


class Readiness:
    """Asks the registry, and the engine when there is one fixed engine (hosted engines start on demand).

    Anybody may ask, so it is found out at most once a second.
    """

    def __init__(
        self,
        registry: Registry,
        session: aiohttp.ClientSession,
        *,
        engine_url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._session = session
        self._engine_url = engine_url
        self._clock = clock
        self._finding_out: SingleFlight[list[Check]] = SingleFlight()
        self._found: list[Check] = []
        self._until = -math.inf

    async def checks(self) -> list[Check]:
        if self._clock() < self._until:
            return self._found
        return await self._finding_out.run("", self._find_out)

    async def _find_out(self) -> list[Check]:
        self._found = [await _check("registry", self._registry.models(at_most=1))]
        if self._engine_url:
            self._found.append(await _check("engine", self._probe_engine()))
        self._until = self._clock() + TRUE_SECONDS
        return self._found

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
