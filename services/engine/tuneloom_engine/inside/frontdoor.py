"""An ASGI middleware that vLLM puts around its application (`--middleware`).

It lets through only the paths that a gateway forwards to or a host asks, because vLLM also offers to load
files, to pause and to update weights, without a key. And it makes SIGTERM a drain: the port closes at once, so
that callers turn elsewhere, and running requests finish. By itself vLLM goes on accepting requests and answers
them with an empty completion.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset(
    {
        "/health",
        "/metrics",
        "/version",
        "/tokenize",
        "/detokenize",
        "/v1/models",
        "/v1/chat/completions",
        "/v1/completions",
    }
)
_CLOSED = json.dumps(
    {"error": {"message": "this path is closed; ask the gateway", "type": "NotFoundError", "code": 404}}
).encode()


class FrontDoor:
    """Wraps the application that vLLM built."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # vLLM has installed its own handler before the lifespan starts.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _drain, scope["app"])
        elif scope["type"] != "http" or scope["path"] not in OPEN_PATHS:
            await _refuse(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _drain(app: Any) -> None:
    app.state.server.should_exit = True


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_CLOSED)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _CLOSED})
