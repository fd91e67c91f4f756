"""Streams: chunks pass when they come, and end when either side ends them."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine
from tests.unit.gateway.conftest import chat

CHAT = "/v1/chat/completions"


async def begin(request: web.Request, content_type: str = "text/event-stream") -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    return response


async def test_chunks_are_not_held_back(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    seen = asyncio.Event()

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request)
        for number in range(3):
            await response.write(b"data: %d\n\n" % number)
            await seen.wait()  # the next chunk comes only after the client has this one
            seen.clear()
        return response

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat(stream=True))
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert len(response.headers["x-served-model-digest"]) == 64
    assert response.headers["x-request-id"]
    got = []
    async for chunk in response.content.iter_any():
        got.append(chunk)
        seen.set()
    assert got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_bytes_are_passed_on_unread(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    said = b"data: not JSON\n\n: a comment\n\ndata: \xff\xfe\n\ndata: [DONE]\n\n"

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request, "text/event-stream; charset=utf-8")
        await response.write(said)
        return response

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat(stream=True))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert await response.read() == said


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_stops_the_engine(
    streaming: bool, gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse()
        if streaming:
            response = await begin(request)
            await response.write(b"data: 1\n\n")
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return response

    engine.answer = answer
    asking = asyncio.create_task(gateway.post(CHAT, json=chat(stream=streaming)))
    await began.wait()
    if streaming:
        (await asking).close()
    else:
        asking.cancel()
    await asyncio.wait_for(stopped.wait(), 5)
    text = ""
    while 'status="499"' not in text:  # the gateway counts the request after it has let go of the engine
        text = await (await gateway.get("/metrics")).text()
    assert "tuneloom_gateway_requests_in_flight 1.0" in text  # the one that asks
    engine.answer = FakeEngine().answer
    assert (await gateway.post(CHAT, json=chat())).status == 200


async def test_an_engine_that_breaks_off_ends_in_an_error_event(
    gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request)
        await response.write(b'data: {"half')
        assert request.transport is not None
        request.transport.abort()
        return response

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat(stream=True))
    assert response.status == 200
    last = (await response.read()).split(b"\n\n")[-2]
    assert last.startswith(b'data: {"error": {"message": "the engine for assistant broke off')
    assert len(engine.requests) == 1  # never repeated once something was answered


async def test_other_chunked_answers_break_off_too(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request, "application/json")
        await response.write(b'{"half')
        assert request.transport is not None
        request.transport.abort()
        return response

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat())
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_a_compressed_answer_stays_readable(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    async def answer(_: web.Request, __: Any) -> web.Response:
        raw = gzip.compress(b'{"a": 1}')
        return web.Response(body=raw, content_type="application/json", headers={"Content-Encoding": "gzip"})

    engine.answer = answer
    assert await (await gateway.post(CHAT, json=chat())).json() == {"a": 1}


async def test_chunked_json_arrives_whole(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request, "application/json")
        await response.write(b'{"a":')
        await response.write(b"1}")
        return response

    engine.answer = answer
    assert await (await gateway.post(CHAT, json=chat())).json() == {"a": 1}
