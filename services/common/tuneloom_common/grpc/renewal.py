"""A channel whose credentials are renewed: gRPC itself keeps for ever those that a channel was opened with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from tuneloom_common.tls import Renewed

Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):
    """Calls begin on a channel with the newest credentials and end on the one they began on, however long they run."""

    def __init__(self, credentials: Renewed[grpc.ChannelCredentials], open_: Open) -> None:
        self._credentials = credentials
        self._open = open_
        self._used = credentials.get()
        self._line = _Line(open_(self._used))
        self._leaving: set[asyncio.Task[None]] = set()

    def line(self) -> _Line:
        """The channel for a call that begins now."""
        newest = self._credentials.get()
        if newest is not self._used:
            leaving = asyncio.create_task(self._line.close_when_idle())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            self._used, self._line = newest, _Line(self._open(newest))
        return self._line

    async def close(self, grace: float | None = None) -> None:
        for leaving in list(self._leaving):
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._line.channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._line.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.line().channel.channel_ready()

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _Method(self, "unary_unary", method, args, options)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _Method(self, "unary_stream", method, args, options)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _Method(self, "stream_unary", method, args, options)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _Method(self, "stream_stream", method, args, options)


class _Line:
    """One channel, the methods made on it and the calls that run."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.methods: dict[_Method, Any] = {}
        self._calls: set[Any] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def began(self, call: Any) -> None:
        self._calls.add(call)
        self._idle.clear()
        call.add_done_callback(self._ended)

    async def close_when_idle(self) -> None:
        try:
            await self._idle.wait()
        finally:
            await self.channel.close()

    def _ended(self, call: Any) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._idle.set()


class _Method:
    def __init__(self, channel: RenewedChannel, kind: str, method: str, args: Any, options: Any) -> None:
        self._channel = channel
        self._make = (kind, method, args, options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        line = self._channel.line()
        if (method := line.methods.get(self)) is None:
            kind, name, made_with, made_by = self._make
            method = line.methods[self] = getattr(line.channel, kind)(name, *made_with, **made_by)
        call = method(*args, **options)
        line.began(call)
        return call
