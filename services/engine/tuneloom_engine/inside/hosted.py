"""Adapters from the engine host that started this engine, which has the token and the store."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tuneloom_common.errors import BY_CODE, TuneloomError, Unavailable
from tuneloom_common.names import EngineName
from tuneloom_engine.inside.adapter import Adapter

# Fetching a large adapter from a far store takes its time.
TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=5)


class HostedAdapters:
    """Asks over the host's private socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def get(self, base: str, name: str) -> Adapter:
        """Raises what the host raised, Unavailable when it is gone."""
        path = f"/adapters/{EngineName.parse(base)}/{EngineName.parse(name)}"
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket)), timeout=TIMEOUT) as session,
                session.post(f"http://host{path}") as response,
            ):
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise Unavailable("the engine host does not answer; its log tells more") from None
        if response.status != 200:
            raise BY_CODE.get(answer["code"], TuneloomError)(answer["error"], reason=answer["reason"])
        return Adapter(name, answer["id"], Path(answer["directory"]))
