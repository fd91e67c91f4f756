"""What the gateway's process writes while everything goes wrong: no key, no prompt, no header of a request."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.fakes import FakeEngine, FakeRegistry
from tests.integration.gateway.conftest import KEY, Start, url_of

ENGINE_KEY, PROMPT = "engine-canary-key", "What did the canary say?"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


@pytest.mark.parametrize("log_json", ["true", "false"])
async def test_failures_tell_nothing(log_json: str, start: Start, engine: FakeEngine, registry: FakeRegistry) -> None:
    process = await start(LOG_JSON=log_json, ENGINE_API_KEY=ENGINE_KEY)
    url = await url_of(process)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        for answer in (dies_in_mid_json, dies_in_mid_stream, dies_at_once, quotes_the_prompt, speaks_no_http):
            engine.answer = answer
            await ask(client)
        registry.versions["assistant"][0].manifest_json = PROMPT
        registry.move("assistant", "default", 1)
        await ask(client)
        await ask(client.with_options(api_key=f"{KEY}-wrong"))
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    text = (await asyncio.wait_for(process.stderr.read(), 20)).decode()
    assert "engine broke off a stream" in text
    assert "Exception in ASGI application" in text
    assert "Traceback (most recent call last)" in text
    for secret in (KEY, ENGINE_KEY, PROMPT, "registry-token", "Authorization", "x-request-id"):
        assert secret not in text


async def ask(client: openai.AsyncOpenAI) -> None:
    """Whole and streamed. What comes of it is others' matter."""
    for stream in (True, False):
        with suppress(Exception):
            made: Any = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=stream)
            if stream:
                async for _ in made:
                    pass


async def _begin(request: web.Request, content_type: str) -> None:
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    await response.write(b'data: {"half')
    assert request.transport is not None
    request.transport.abort()


async def dies_in_mid_json(request: web.Request, _: Any) -> web.StreamResponse:
    await _begin(request, "application/json")
    return web.Response()


async def dies_in_mid_stream(request: web.Request, _: Any) -> web.StreamResponse:
    await _begin(request, "text/event-stream")
    return web.Response()


async def dies_at_once(request: web.Request, _: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def quotes_the_prompt(request: web.Request, body: Any) -> web.StreamResponse:
    return web.json_response({"error": {"message": f"cannot {body}"}}, status=500)


async def speaks_no_http(request: web.Request, body: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(f"{body} {dict(request.headers)}\r\n\r\n".encode())  # type: ignore[attr-defined]
    request.transport.close()
    return web.Response()
