"""A client that speaks HTTP by hand, badly when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.unit.gateway.conftest import KEY

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Said:
    """An answer; `status` 0 is none at all."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def error(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        body = json.loads(self.raw)
        assert body["error"].keys() == {"message", "type", "param", "code"}
        found: dict[str, Any] = body["error"]
        return found


@dataclass(frozen=True)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> Said:
        """The next answer. Waits for it, but not for ever."""
        async with asyncio.timeout(5):
            try:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            except (asyncio.IncompleteReadError, ConnectionError):
                return Said(0, {}, b"")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
            return Said(
                int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", 0)))
            )

    async def closed(self) -> bool:
        """Waits for the other side to close it, with nothing more said."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def line(gateway: aiohttp.ClientSession) -> AsyncIterator[Line]:
    url = gateway._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def say(gateway: aiohttp.ClientSession, *pieces: bytes) -> Said:
    """Sends it and returns the answer."""
    async with line(gateway) as connection:
        await connection.send(*pieces)
        return await connection.answer()
