"""Who gets in, with how much, and how many at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine
from tests.unit.gateway.conftest import KEY, OpenGateway, chat, error_of

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer ü"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/elsewhere")])
async def test_no_key_no_answer(
    authorization: str, method: str, path: str, gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    response = await gateway.request(method, path, headers={"Authorization": authorization})
    assert response.status == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = await error_of(response)
    assert error["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in error["message"]
    assert KEY not in error["message"]
    assert engine.requests == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_need_no_key(path: str, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get(path, headers={"Authorization": "Bearer wrong"})
    assert response.status == 200
    assert response.headers["x-request-id"]


async def test_the_scheme_is_case_insensitive(gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get("/v1/models", headers={"Authorization": f"bearer  {KEY}"})
    assert response.status == 200


async def test_open_on_loopback(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(api_key_sha256s=())
    anything = {"Authorization": "Bearer whatever", "Sec-Fetch-Site": "same-origin"}
    assert (await gateway.post(CHAT, json=chat(), headers=anything)).status == 200
    assert (await gateway.get("/v1/models", headers={"Host": "[::1]:8000"})).status == 200


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example:8000"}])
async def test_open_is_not_for_web_pages(headers: dict[str, str], open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(api_key_sha256s=())
    response = await gateway.post(CHAT, json=chat(), headers=headers)
    assert response.status == 401
    assert "TUNELOOM_GATEWAY_API_KEY_SHA256S" in (await error_of(response))["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large(chunked: bool, open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(max_body_bytes=2000)

    async def pieces() -> Any:
        for _ in range(300):
            yield b"x" * 10_000

    data = pieces() if chunked else b"x" * 2001
    response = await gateway.post(CHAT, data=data)
    assert response.status == 413
    error = await error_of(response)
    assert error["code"] == "body_too_large"
    assert "TUNELOOM_GATEWAY_MAX_BODY_BYTES" in error["message"]
    assert "2,000" in error["message"]
    assert chunked or "2,001 bytes" in error["message"]
    assert engine.requests == []


async def test_exactly_as_large_as_allowed(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(max_body_bytes=2000)
    raw = b'{"model":"assistant","messages":[]}'.ljust(2000)
    assert (await gateway.post(CHAT, data=raw)).status == 200


async def test_too_many(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(max_concurrent_requests=1)
    began, go = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request, __: Any) -> web.Response:
        began.set()
        await go.wait()
        return web.json_response({})

    engine.answer = answer
    first = asyncio.create_task(gateway.post(CHAT, json=chat()))
    await began.wait()
    second = await gateway.post(CHAT, json=chat())
    assert second.status == 429
    assert int(second.headers["retry-after"]) > 0
    error = await error_of(second)
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert "TUNELOOM_GATEWAY_MAX_CONCURRENT_REQUESTS" in error["message"]
    assert (await gateway.get("/healthz")).status == 200
    go.set()
    assert (await first).status == 200
    assert (await gateway.post(CHAT, json=chat())).status == 200
