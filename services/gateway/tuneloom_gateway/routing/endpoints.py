"""Where engines are."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import aiohttp
from pydantic import SecretStr

from tuneloom_client.single_flight import SingleFlight
from tuneloom_common.errors import NotFound, TuneloomError, Unavailable
from tuneloom_common.tls import PeerTls
from tuneloom_common.tls.faults import REASON as HANDSHAKE_FAILED
from tuneloom_common.tls.faults import fault_raised, sentence
from tuneloom_gateway.errors import EngineTimeout, without_paths


class Endpoints(Protocol):
    """Engines are known by the engine names of base or merged versions. URLs are http://… or unix:/path."""

    async def urls(self, engine: str) -> Sequence[str]:
        """The base URLs of ready endpoints, one at least. May take as long as an engine takes to start."""

    def forget(self, engine: str, url: str) -> None:
        """Nobody answered at this URL."""

    async def close(self) -> None:
        """Ends what is under way."""


class StaticEndpoint:
    """One server for everything."""

    def __init__(self, url: str) -> None:
        self._urls = (url,)

    async def urls(self, engine: str) -> Sequence[str]:
        return self._urls

    def forget(self, engine: str, url: str) -> None:
        pass

    async def close(self) -> None:
        pass


class HostedEndpoints:
    """Engines that an engine host starts when they are needed and stops when they are not.

    At most `max_waiting` requests wait for starts, so that the other places stay free for models that are ready.
    """

    def __init__(
        self,
        engine_host_url: str,
        session: aiohttp.ClientSession,
        *,
        start_timeout_seconds: float,
        token: SecretStr | None = None,
        tls: PeerTls | None = None,
        max_waiting: int = 250,
    ) -> None:
        self._host_url = engine_host_url
        self._session = session
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._tls = tls
        self._secured: dict[str, Any] = (
            {"ssl": tls.context(), "server_hostname": tls.server_name or None} if tls else {}
        )
        self._timeout = aiohttp.ClientTimeout(total=start_timeout_seconds)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._urls: dict[str, tuple[str, ...]] = {}
        self._starts: SingleFlight[tuple[str, ...]] = SingleFlight()

    async def urls(self, engine: str) -> Sequence[str]:
        return self._urls.get(engine) or await self._started(engine)

    def forget(self, engine: str, url: str) -> None:
        left = tuple(known for known in self._urls.get(engine, ()) if known != url)
        if left:
            self._urls[engine] = left
        else:
            self._urls.pop(engine, None)

    async def close(self) -> None:
        await self._starts.close()

    async def _started(self, engine: str) -> tuple[str, ...]:
        if self._waiting >= self._max_waiting:
            raise Unavailable(
                f"the engine for {engine} is starting and {self._waiting} requests wait for engines already; try again "
                "in a minute",
                reason="ENGINE_STARTING",
            )
        self._waiting += 1
        try:
            return await self._starts.run(engine, partial(self._start, engine))
        finally:
            self._waiting -= 1

    async def _start(self, engine: str) -> tuple[str, ...]:
        url = f"{self._host_url}/replicas/{engine}"
        try:
            async with self._session.post(
                url, headers=self._headers, timeout=self._timeout, **self._secured
            ) as response:
                answer = await response.json(content_type=None)
        except TimeoutError:
            raise EngineTimeout(
                f"the engine for {engine} is still starting; try again in a minute", reason="ENGINE_STARTING"
            ) from None
        except (aiohttp.ClientError, ValueError) as error:
            reset = getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE)
            hung_up = self._tls is not None and (reset or isinstance(error, aiohttp.ServerDisconnectedError))
            if fault := fault_raised(error, hung_up=hung_up):
                told = sentence(fault, "engine host", tls=self._tls, setting="TUNELOOM_GATEWAY_ENGINE_HOST_")
                raise Unavailable(told, reason=HANDSHAKE_FAILED) from None
            raise Unavailable(
                "the engine host does not answer; is it running? See whether it is where "
                "TUNELOOM_GATEWAY_ENGINE_HOST_URL says",
                reason="ENGINE_HOST_UNAVAILABLE",
            ) from None
        if response.status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("url"), str):
            raise _refusal(engine, response.status, answer)
        self._urls[engine] = (answer["url"].rstrip("/"),)
        return self._urls[engine]


def _refusal(engine: str, status: int, answer: Any) -> TuneloomError:
    said = answer if isinstance(answer, dict) else {}
    parts = (said.get("error"), said.get("next_step") or said.get("next step"))
    text = "; ".join(str(part) for part in parts if part) or f"the engine host answered with status {status}"
    text = without_paths(text)
    if status == 404:
        return NotFound(f"no engine can serve {engine}: {text}", reason="ENGINE_NOT_FOUND", field="model")
    if status in (401, 403):
        return Unavailable(
            f"the engine host refused the gateway ({text}); set TUNELOOM_GATEWAY_ENGINE_HOST_TOKEN to a token with the "
            "scope engines:use",
            reason="ENGINE_HOST_REFUSED",
        )
    failed = said.get("reason") == "ENGINE_FAILED"
    later = said.get("retry_after_seconds")
    return Unavailable(
        f"the engine for {engine} cannot start: {text}",
        reason="ENGINE_FAILED" if failed else "ENGINE_UNAVAILABLE",
        metadata={"retry_after_seconds": str(int(later) + 1)} if isinstance(later, int | float) else {},
    )
