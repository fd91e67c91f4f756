"""A gateway over a fake registry and a fake engine, all on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.fakes import FakeEngine, FakeRegistry, served
from tuneloom_gateway.app import build
from tuneloom_gateway.edge.descriptors import Descriptors
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.server import limited
from tuneloom_gateway.settings import Settings

KEY = "sk-test"
MESSAGES = [{"role": "user", "content": "hi"}]
OpenGateway = Callable[..., Awaitable[aiohttp.ClientSession]]


@pytest.fixture
def registry() -> FakeRegistry:
    """A base `qwen`; an adapter `assistant` with two versions; a merged `coach`; a checkpoint; a live job."""
    registry = FakeRegistry()
    base = registry.add("qwen", "base")
    registry.add("assistant", "adapter", base=base)
    registry.add("assistant", "adapter", base=base)
    registry.aliases["assistant"]["canary"] = 2
    registry.add("coach", "merged", base=base)
    registry.add("raw", "checkpoint", base=base)
    registry.add("job-7k", "adapter", base=base, step="100")
    return registry


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine().running() as engine:
        yield engine


@pytest.fixture
async def open_gateway(registry: FakeRegistry, engine: FakeEngine) -> AsyncIterator[OpenGateway]:
    """Starts a gateway and gives a client of it. Keywords are settings, or parts for `build` in `parts`."""
    async with AsyncExitStack() as stack:

        async def start(*, parts: dict[str, Any] | None = None, **settings: Any) -> aiohttp.ClientSession:
            if "engine_host_url" not in settings:
                settings.setdefault("engine_url", engine.url)
            settings.setdefault("api_key_sha256s", (hashlib.sha256(KEY.encode()).hexdigest(),))
            chosen, metrics = Settings(**settings), Metrics()
            app = build(chosen, **{"registry": registry, "metrics": metrics, **(parts or {})})
            protocol = await stack.enter_async_context(limited(chosen, Descriptors(1024), metrics))
            url = await stack.enter_async_context(served(app, protocol=protocol))
            return await stack.enter_async_context(
                aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {KEY}"})
            )

        yield start


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> aiohttp.ClientSession:
    return await open_gateway()


def chat(model: Any = "assistant", **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": MESSAGES, **more}


async def until(condition: Callable[[], bool]) -> None:
    """Lets the other tasks run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a condition has no event
            await asyncio.sleep(0)


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The error of an answer, after checking that it has OpenAI's shape and the headers every answer has."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = await response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    assert error["message"]
    assert isinstance(error["type"], str)
    return error
