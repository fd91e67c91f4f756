"""Notices that a client has left, so that nobody computes for it any longer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Protocol

from starlette.types import Scope

from tuneloom_gateway.edge.context import CONNECTION
from tuneloom_gateway.errors import ClientGone


class Connection(Protocol):
    """Calls `on_lost` once, when the client is gone."""

    lost: bool
    on_lost: Any


class WhileConnected:
    """Cancels the block and raises ClientGone when the client disconnects. The body must have been read.

    The connection itself tells: a task per request that waits for the news would cost more than the rest of this.
    """

    __slots__ = ("_block", "_connection", "_left")

    def __init__(self, scope: Scope) -> None:
        self._connection: Connection = scope[CONNECTION]
        self._left = False

    def __enter__(self) -> None:
        if self._connection.lost:
            raise ClientGone
        self._block = asyncio.current_task()
        self._connection.on_lost = self._leave

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.on_lost = None
        if self._left and self._block is not None and self._block.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from None

    def _leave(self) -> None:
        self._left = True
        if self._block is not None:
            self._block.cancel()
