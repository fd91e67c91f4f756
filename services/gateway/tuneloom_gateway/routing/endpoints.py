"""Where engines are."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import aiohttp

from tuneloom_client.single_flight import SingleFlight
from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_gateway.errors import EngineTimeout, without_paths


class Endpoints(Protocol):
    """Replica names are engine names of base or merged versions."""

    async def url(self, replica: str) -> str:
        """The base URL of a ready engine. May take as long as an engine takes to start."""

    def forget(self, replica: str, url: str) -> None:
        """Nobody answered at this URL."""

    async def close(self) -> None:
        """Ends what is under way."""


class StaticEndpoint:
    """One server for everything."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def url(self, replica: str) -> str:
        return self._url

    def forget(self, replica: str, url: str) -> None:
        pass

    async def close(self) -> None:
        pass


class HostedEndpoints:
    """Engines that an engine host starts when they are needed and stops when they are not."""

    def __init__(self, engine_host_url: str, session: aiohttp.ClientSession, *, start_timeout_seconds: float) -> None:
        self._host_url = engine_host_url
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=start_timeout_seconds)
        self._urls: dict[str, str] = {}
        self._starts: SingleFlight[str] = SingleFlight()

    async def url(self, replica: str) -> str:
        return self._urls.get(replica) or await self._starts.run(replica, partial(self._start, replica))

    def forget(self, replica: str, url: str) -> None:
        if self._urls.get(replica) == url:  # else somebody has asked anew already
            del self._urls[replica]

    async def close(self) -> None:
        await self._starts.close()

    async def _start(self, replica: str) -> str:
        try:
            async with self._session.post(f"{self._host_url}/replicas/{replica}", timeout=self._timeout) as response:
                answer = await response.json(content_type=None)
        except TimeoutError:
            raise EngineTimeout(
                f"the engine for {replica} is still starting; try again in a minute", reason="ENGINE_STARTING"
            ) from None
        except (aiohttp.ClientError, ValueError):
            raise Unavailable(
                "the engine host does not answer; is it running? Start it with 'tuneloom up'",
                reason="ENGINE_HOST_UNAVAILABLE",
            ) from None
        if response.status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
            raise _refusal(replica, response.status, answer)
        self._urls[replica] = answer["url"].rstrip("/")
        return self._urls[replica]


def _refusal(replica: str, status: int, answer: Any) -> Exception:
    said = answer if isinstance(answer, dict) else {}
    parts = (said.get("error"), said.get("next_step") or said.get("next step"))
    text = "; ".join(str(part) for part in parts if part) or f"the engine host answered with status {status}"
    text = without_paths(text)
    if status == 404:
        return NotFound(f"no engine can serve {replica}: {text}", reason="ENGINE_NOT_FOUND", field="model")
    return Unavailable(f"the engine for {replica} cannot start: {text}", reason="ENGINE_UNAVAILABLE")
