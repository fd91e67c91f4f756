"""Connections to engines, which listen on ports or on private Unix sockets."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

SCHEME = "unix:"
# No host is called so: names under "invalid" are reserved for never existing (RFC 6761).
DOMAIN = ".unix.invalid"


class EngineConnector(aiohttp.TCPConnector):
    """Pools by host name, so each Unix socket is given one: `http://1.unix.invalid`."""

    def __init__(self, *, keepalive_timeout: float) -> None:
        super().__init__(limit=0, keepalive_timeout=keepalive_timeout)
        self._urls: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def reachable(self, url: str) -> str:
        """The URL by which this connector knows an endpoint: of `unix:/path` an http:// URL, others as they are."""
        if not url.startswith(SCHEME):
            return url
        known = self._urls.get(url)
        if known is None:
            host = f"{len(self._urls) + 1}{DOMAIN}"
            known = self._urls[url] = f"http://{host}"
            self._paths[host] = url.removeprefix(SCHEME)
        return known

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        path = self._paths.get(req.url.raw_host or "")
        if path is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await self._loop.create_unix_connection(self._factory, path)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnixClientConnectorError(path, req.connection_key, error) from error
        return protocol
