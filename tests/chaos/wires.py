"""Connections between two parts that can be cut: what is sent waits, as it does on a network that drops packets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE_BYTES = 1 << 16


class Wire:
    """Forwards TCP from a port of its own. While it is cut nothing passes either way, and nobody is told."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self._host = host
        self._to = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        self._whole.clear()
        try:
            yield
        finally:
            self._whole.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        ends = [near_out]
        try:
            await self._whole.wait()
            far_in, far_out = await asyncio.open_connection(self._host, self._to)
            ends.append(far_out)
            await asyncio.gather(self._pump(near_in, far_out), self._pump(far_in, near_out))
        except OSError:
            near_out.transport.abort()
        finally:
            for end in ends:
                end.close()
            self._passing.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE_BYTES):
                await self._whole.wait()
                sink.write(piece)
                await sink.drain()
        await self._whole.wait()
        with suppress(OSError, RuntimeError):
            sink.write_eof()
