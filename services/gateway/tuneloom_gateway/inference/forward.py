"""The way to engines: one session, one retry while nothing was answered, closed when the client leaves."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import structlog
from pydantic import SecretStr

from tuneloom_common.errors import TuneloomError, Unavailable
from tuneloom_common.tracebacks import describe
from tuneloom_gateway.errors import EngineTimeout
from tuneloom_gateway.inference.connector import SCHEME, EngineConnector
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.routing.choice import Random, pick_endpoint
from tuneloom_gateway.routing.endpoints import Endpoints
from tuneloom_gateway.routing.served import ServedVersion

# vLLM closes idle connections after 5 s: the gateway must do so first, or a request runs into the closing.
KEEP_ALIVE_SECONDS = 4
LARGE_BODY_BYTES = 1 << 20
_FAILED = (aiohttp.ClientError, TimeoutError)
_LOST = (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
log = structlog.get_logger()


def open_session(*, connect_seconds: float, read_seconds: float) -> aiohttp.ClientSession:
    """The one session of a gateway. To be called inside the event loop. aiohttp itself sets TCP_NODELAY."""
    return aiohttp.ClientSession(
        connector=EngineConnector(keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=read_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent",),
        headers={"Accept-Encoding": "identity"},
    )


class Upstream:
    """Posts JSON to engines. `random` picks among the endpoints of one."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoints: Endpoints,
        metrics: Metrics,
        *,
        engine_api_key: SecretStr | None,
        random: Random,
    ) -> None:
        self._session = session
        self._endpoints = endpoints
        self._metrics = metrics
        self._random = random
        self._headers = {"Content-Type": "application/json"}
        if engine_api_key is not None:
            self._headers["Authorization"] = f"Bearer {engine_api_key.get_secret_value()}"

    @asynccontextmanager
    async def post(
        self, served: ServedVersion, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The engine's response, its body unread. Leaving early closes the connection: the engine stops."""
        response = await self._open(served, path, body, {**self._headers, **headers})
        try:
            yield response
        except _FAILED as error:
            raise self._told(error, served) from None
        finally:
            response.close()  # of no effect once the body is read to its end

    async def _open(
        self, served: ServedVersion, path: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Once more, on another endpoint if there is one, when the first was lost before it had answered anything."""
        url = pick_endpoint(await self._endpoints.urls(served.engine), (), self._random)
        try:
            response = await self._send(url, path, body, headers)
            if response.status != 404 or not await self._has_moved(served, url, response):
                return response
        except _LOST as error:
            # Nothing was answered: the engine was restarted or evicted, or closed an idle connection.
            log.info("engine connection lost, trying once more", engine=served.engine, error=describe(error))
            self._metrics.upstream_errors.labels("lost").inc()
            self._endpoints.forget(served.engine, url)
        except _FAILED as error:
            raise self._told(error, served) from None
        url = pick_endpoint(await self._endpoints.urls(served.engine), (url,), self._random)
        try:
            return await self._send(url, path, body, headers)
        except _FAILED as error:
            raise self._told(error, served) from None

    async def _has_moved(self, served: ServedVersion, url: str, response: aiohttp.ClientResponse) -> bool:
        """Whether an engine that does not know the model is another one, which got the port of an evicted one.

        The path of a socket is never used again, so there it is the right one.
        """
        if url.startswith(SCHEME):
            return False
        await response.read()
        self._endpoints.forget(served.engine, url)
        return url not in await self._endpoints.urls(served.engine)

    async def _send(self, url: str, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if url.startswith(SCHEME) and isinstance(self._session.connector, EngineConnector):
            url, headers = self._session.connector.reachable(url), {**headers, "Host": "engine"}
        # aiohttp writes a stream piece by piece, bytes in one go that would hold up the other requests.
        data = body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body)
        return await self._session.post(url + path, data=data, headers=headers, allow_redirects=False)

    def _told(self, error: Exception, served: ServedVersion) -> TuneloomError:
        """An engine's failure without the engine's address, which is no caller's business."""
        if isinstance(error, TimeoutError):
            self._metrics.upstream_errors.labels("timeout").inc()
            return EngineTimeout(
                f"the engine for {served.model} did not answer in time; try again, with fewer tokens if this "
                "repeats, or raise TUNELOOM_GATEWAY_ENGINE_READ_TIMEOUT_SECONDS"
            )
        self._metrics.upstream_errors.labels("lost").inc()
        log.warning("engine failed", engine=served.engine, error=describe(error))
        return Unavailable(
            f"the engine for {served.model} does not answer; it may be starting: try again in a "
            "minute, and see GET /readyz",
            reason="ENGINE_UNAVAILABLE",
        )
