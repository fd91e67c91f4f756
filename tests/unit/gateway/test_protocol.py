"""What a client without a key can make the gateway hold, and how long it can make it wait."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine
from tests.unit.gateway.conftest import KEY, OpenGateway, chat
from tests.unit.gateway.raw import ALIVE, HEAD, line, say

QUICK = {"header_timeout_seconds": 0.2, "keep_alive_seconds": 0.3, "body_timeout_seconds": 0.2}


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ([b"hello there\r\n\r\n"], 400, "bad_http"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "bad_http"),
        ([b"GET / HTTP/1.1\r\nbad header: \x00\r\n\r\n"], 400, "bad_http"),
        ([b"GET /\xff HTTP/1.1\r\n\r\n"], 400, "bad_http"),
        ([b"GET /healthz HTTP/1.1\r\n", b"a: " + b"x" * 40_000 + b"\r\n\r\n"], 431, "headers_too_large"),
        ([b"GET /healthz HTTP/1.1\r\na: ", *[b"x" * 8000] * 8], 431, "headers_too_large"),
        ([b"GET /healthz HTTP/1.1\r\n", *[b"a: " + b"x" * 5000 + b"\r\n"] * 8], 431, "headers_too_large"),
        ([b"GET /healthz HTTP/1.1\r\n", *[b"a: b\r\n"] * 101, b"\r\n"], 431, "too_many_headers"),
        ([b"GET /healthz?" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n"], 414, "request_line_too_long"),
        ([b"GET /" + b"x" * 100_000], 414, "request_line_too_long"),
    ],
)
async def test_heads_beyond_the_limits(
    head: list[bytes], status: int, code: str, gateway: aiohttp.ClientSession
) -> None:
    async with line(gateway) as connection:
        await connection.send(*head)
        said = await connection.answer()
        assert (said.status, said.error["code"], said.error["type"]) == (status, code, "invalid_request_error")
        assert said.headers["connection"] == "close"
        assert await connection.closed()
    text = await (await gateway.get("/metrics")).text()
    assert f'tuneloom_gateway_refused_connections_total{{reason="{code}"}} 1.0' in text


async def test_heads_within_the_limits(gateway: aiohttp.ClientSession) -> None:
    many = b"".join(b"h%d: %b\r\n" % (number, b"x" * 300) for number in range(98))
    assert (await say(gateway, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", many, b"\r\n")).status == 200
    assert (await say(gateway, b"GET /healthz?", b"x" * 8000, b" HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200
    assert (await say(gateway, *(bytes([byte]) for byte in ALIVE))).status == 200


async def test_many_requests_on_one_connection(gateway: aiohttp.ClientSession) -> None:
    async with line(gateway) as connection:
        for _ in range(300):  # more bytes of headers together than one request may have
            await connection.send(ALIVE.replace(b"Host", b"X: " + b"x" * 200 + b"\r\nHost"))
            assert (await connection.answer()).status == 200


async def test_pipelined_requests(gateway: aiohttp.ClientSession) -> None:
    async with line(gateway) as connection:
        await connection.send(ALIVE * 10)
        assert [(await connection.answer()).status for _ in range(10)] == [200] * 10
        await connection.send(ALIVE * 4000)
        statuses = {(await connection.answer()).status for _ in range(30)}
    assert statuses <= {0, 200}
    assert 0 in statuses


async def test_an_upgrade_is_an_ordinary_request(gateway: aiohttp.ClientSession) -> None:
    asked = ALIVE.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: websocket\r\nHost")
    assert (await say(gateway, asked)).status == 200


async def test_silence_is_not_waited_for(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(**QUICK)
    async with line(gateway) as silent, line(gateway) as slow, line(gateway) as idle:
        await slow.send(b"GET /healthz HTTP/1.1\r\nHo")
        await idle.send(ALIVE)
        assert (await idle.answer()).status == 200
        assert await silent.closed()
        said = await slow.answer()
        assert (said.status, said.error["code"]) == (408, "header_timeout")
        assert await idle.closed()


@pytest.mark.parametrize("began", [b"", b'{"model": '])
async def test_a_body_that_does_not_come(began: bytes, open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(**QUICK)
    said = await say(gateway, HEAD, b"Content-Length: 1000\r\n\r\n", began)
    assert (said.status, said.error["code"]) == (408, "body_timeout")
    assert "TUNELOOM_GATEWAY_BODY_TIMEOUT_SECONDS" in said.error["message"]


async def test_a_key_is_wanted_before_the_body(gateway: aiohttp.ClientSession) -> None:
    wrong = HEAD.replace(KEY.encode(), b"wrong")
    async with line(gateway) as connection:
        await connection.send(wrong, b"Content-Length: 9000000\r\nExpect: 100-continue\r\n\r\n")
        assert (await connection.answer()).status == 401  # and not "100 Continue"


async def test_who_sends_on_after_a_refusal_is_cut_off(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway()
    async with line(gateway) as connection:
        await connection.send(HEAD.replace(KEY.encode(), b"wrong"), b"Content-Length: 99000000\r\n\r\n")
        assert (await connection.answer()).status == 401
        with pytest.raises(ConnectionError):
            await connection.send(*[b"x" * (1 << 20)] * 99)


@pytest.mark.parametrize(
    "body",
    [
        [b"1;" + b"x" * 2000 + b"\r\nx\r\n"] * 400,
        [b"1\r\nx\r\n0\r\ntrailer: ", *[b"x" * 8000] * 100],
    ],
)
async def test_chunks_that_are_mostly_framing(body: list[bytes], gateway: aiohttp.ClientSession) -> None:
    said = await say(gateway, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", *body)
    assert (said.status, said.error["code"]) == (400, "bad_chunks")


async def test_small_chunks_and_trailers_are_fine(gateway: aiohttp.ClientSession) -> None:
    body = json.dumps(chat()).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-sum: 1\r\n\r\n"
    assert (await say(gateway, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunks)).status == 200


async def test_silent_connections_shut_out_nobody(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(max_connections=20, max_connections_per_client=20)
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(line(gateway)) for _ in range(100)]
        for _ in range(5):
            assert (await say(gateway, ALIVE)).status == 200
        assert await silent[0].closed()
        assert await silent[70].closed()


async def test_answering_goes_on_when_all_places_are_taken(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(max_connections=3, max_connections_per_client=3)
    began, go = asyncio.Semaphore(0), asyncio.Event()

    async def answer(_: web.Request, __: Any) -> web.Response:
        began.release()
        await go.wait()
        return web.json_response({})

    engine.answer = answer
    body = json.dumps(chat()).encode()
    async with AsyncExitStack() as stack:
        working = [await stack.enter_async_context(line(gateway)) for _ in range(3)]
        for one in working:
            await one.send(HEAD, b"Content-Length: %d\r\n\r\n" % len(body), body)
            await began.acquire()
        said = await say(gateway)
        assert (said.status, said.error["code"]) == (503, "too_many_connections")
        go.set()
        assert [(await one.answer()).status for one in working] == [200] * 3
        assert (await say(gateway, ALIVE)).status == 200  # one that waits makes room


async def test_who_does_not_read_is_cut_off(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(write_timeout_seconds=0.2)
    stopped = asyncio.Event()

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: " + b"x" * (1 << 20) + b"\n\n")
        finally:
            stopped.set()

    engine.answer = answer
    body = json.dumps(chat(stream=True)).encode()
    async with line(gateway) as connection:
        await connection.send(HEAD, b"Content-Length: %d\r\n\r\n" % len(body), body)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(stopped.wait(), 5)


async def test_garbage_behind_a_request_does_not_hurt_its_answer(
    gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    body = json.dumps(chat()).encode()
    async with line(gateway) as connection:
        await connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"garbage\r\n\r\n")
        assert (await connection.answer()).status == 200
        assert await connection.closed()
