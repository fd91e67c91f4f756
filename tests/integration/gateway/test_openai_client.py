"""The official client against the real process: gRPC to a registry, HTTP to an engine, signals."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from asyncio.subprocess import Process
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.fakes import FakeEngine, FakeRegistry, event
from tests.integration.gateway.conftest import KEY, MESSAGES, Start


async def test_chat(client: openai.AsyncOpenAI, engine: FakeEngine, registry: FakeRegistry) -> None:
    answer = await client.chat.completions.with_raw_response.create(
        model="assistant", messages=MESSAGES, temperature=0.5, extra_body={"top_k": 5}
    )
    version = registry.versions["assistant"][0]
    assert answer.headers["x-served-model-digest"] == version.digest
    assert answer.headers["x-served-model"] == "models/assistant/versions/1"
    assert answer.headers["x-request-id"]
    completion = answer.parse()
    assert completion.choices[0].message.content == "hello there"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 8
    _, body, _ = engine.requests[0]
    assert body == {"model": version.engine_name, "messages": MESSAGES, "temperature": 0.5, "top_k": 5}


async def test_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="assistant:2", messages=MESSAGES, stream=True)
    words = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert words == ["hello", " there"]


async def test_models(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["assistant", "qwen"]
    model = await client.models.retrieve("assistant:2")
    assert (model.id, model.owned_by) == ("assistant:2", "tuneloom")
    assert model.model_extra is not None
    assert model.model_extra["digest"] == registry.versions["assistant"][1].digest


async def test_errors_are_the_clients_own(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'assistant'") as unknown:
        await client.chat.completions.create(model="asistant", messages=MESSAGES)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert unknown.value.request_id
    with pytest.raises(openai.AuthenticationError, match="TUNELOOM_GATEWAY_API_KEY_SHA256S"):
        await client.with_options(api_key="wrong").models.list()
    big: Any = [{"role": "user", "content": "x" * (11 << 20)}]
    with pytest.raises(openai.APIStatusError, match="MAX_BODY_BYTES") as large:
        await client.chat.completions.create(model="assistant", messages=big)
    assert large.value.status_code == 413


async def test_a_broken_stream_is_an_error(client: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event({"id": "1", "choices": []}))
        assert request.transport is not None
        request.transport.abort()
        return response

    engine.answer = answer
    stream = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in stream]


async def test_an_alias_moves_under_load(
    client: openai.AsyncOpenAI, registry: FakeRegistry, engine: FakeEngine
) -> None:
    """No request fails, and after the first answer of the new version none comes from the old one."""
    served: list[str] = []

    async def ask() -> None:
        answer = await client.chat.completions.with_raw_response.create(model="assistant", messages=MESSAGES)
        served.append(answer.headers["x-served-model"].rpartition("/")[2])

    for _ in range(20):
        await ask()
    registry.move("assistant", "default", 2)
    async with asyncio.timeout(10):
        while served[-1] != "2":
            await ask()
    for _ in range(20):
        await ask()
    assert served == sorted(served)
    second = registry.versions["assistant"][1]
    assert engine.requests[-1][1]["model"] == second.engine_name


async def test_sigterm_lets_streams_end(client: openai.AsyncOpenAI, process: Process, engine: FakeEngine) -> None:
    refused, go = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for content in ("before", "after"):
            delta = {"index": 0, "delta": {"content": content}, "finish_reason": None}
            await response.write(event({"id": "1", "object": "chat.completion.chunk", "choices": [delta]}))
            await go.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    engine.answer = answer
    stream = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
    words = []
    async for chunk in stream:
        words.append(chunk.choices[0].delta.content)
        if len(words) == 1:
            process.send_signal(signal.SIGTERM)
            await _until_refused(client, refused)
            go.set()
    assert words == ["before", "after"]
    assert refused.is_set()
    assert await asyncio.wait_for(process.wait(), 10) in (0, -signal.SIGTERM)


async def _until_refused(client: openai.AsyncOpenAI, refused: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        while not refused.is_set():
            try:
                _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            except ConnectionRefusedError:
                refused.set()
            except ConnectionResetError:
                continue  # was in the queue of the port that is being closed
            else:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_taken_port(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start(PORT=str(port))
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"127.0.0.1:{port} is in use" in errors.decode()
    assert "TUNELOOM_GATEWAY_PORT" in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_no_keys_on_an_open_address(start: Start) -> None:
    process = await start(HOST="0.0.0.0", TRUSTED_NETWORK="true", API_KEY_SHA256S="")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("TUNELOOM_GATEWAY_API_KEY_SHA256S: ")


async def test_starts_without_a_registry(start: Start, registry: FakeRegistry) -> None:
    process = await start(REGISTRY_ADDRESS="127.0.0.1:9")
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found
    async with openai.AsyncOpenAI(base_url=f"{found[0]}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match="registry does not answer"):
            await client.chat.completions.create(model="assistant", messages=MESSAGES)
