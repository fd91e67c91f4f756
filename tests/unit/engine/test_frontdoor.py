"""The front door before a server that stops as uvicorn does: it reads `app.state.server.should_exit`."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from tuneloom_engine.inside.frontdoor import OPEN_PATHS, FrontDoor


class Inside:
    """The application behind the door."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope.get("path", scope["type"]))


async def knock(door: FrontDoor, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await door(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/adapters",
        "/pause",
        "/update_weights",
        "/invocations",
        "/docs",
        "/v1/models/../load_lora_adapter",
        "/health/",
        "",
    ],
)
async def test_other_paths_are_closed(path: str) -> None:
    inside = Inside()
    start, body = await knock(FrontDoor(inside), {"type": "http", "path": path})
    assert (start["status"], inside.seen) == (404, [])
    assert b"error" in body["body"]


async def test_web_sockets_are_closed() -> None:
    inside = Inside()
    sent = await knock(FrontDoor(inside), {"type": "websocket", "path": "/v1/models"})
    assert ([message["type"] for message in sent], inside.seen) == (["websocket.close"], [])


async def test_what_a_gateway_needs_is_open() -> None:
    inside = Inside()
    for path in sorted(OPEN_PATHS):
        await knock(FrontDoor(inside), {"type": "http", "path": path})
    assert inside.seen == sorted(OPEN_PATHS)
    assert {"/v1/chat/completions", "/v1/completions", "/tokenize", "/health"} <= OPEN_PATHS


async def test_sigterm_drains_the_server() -> None:
    inside, app = Inside(), SimpleNamespace(state=SimpleNamespace(server=SimpleNamespace(should_exit=False)))
    await knock(FrontDoor(inside), {"type": "lifespan", "app": app})
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert app.state.server.should_exit
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    assert inside.seen == ["lifespan"]
