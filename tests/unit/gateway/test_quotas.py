"""Who may do what, and how much of it at a time: nobody's share is everybody's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from starlette.routing import Route

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import OpenGateway, chat, error_of
from tests.unit.gateway.raw import HEAD, line
from tuneloom_common.principals import PrincipalEntry
from tuneloom_gateway.app import build
from tuneloom_gateway.edge.keys import OPEN_PATHS, required_scope
from tuneloom_gateway.edge.quotas import BodyBudget
from tuneloom_gateway.errors import TooManyRequests
from tuneloom_gateway.settings import Settings

CHAT = "/v1/chat/completions"


def caller(key: str, *scopes: str) -> PrincipalEntry:
    return PrincipalEntry.model_validate(
        {"id": f"team-{key}", "key_sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": scopes}
    )


def by(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("scopes", "models", "inference"),
    [
        (("models:read",), 200, 403),
        (("inference",), 403, 200),
        (("inference", "models:read"), 200, 200),
        (("admin",), 200, 200),
        (("registry:write",), 403, 403),
    ],
)
async def test_scopes(scopes: tuple[str, ...], models: int, inference: int, open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(principals=(caller("k", *scopes),))
    for path in ("/v1/models", "/v1/models/assistant"):
        listed = await gateway.get(path, headers=by("k"))
        assert listed.status == models
    asked = await gateway.post(CHAT, json=chat(), headers=by("k"))
    assert asked.status == inference
    if inference == 403:
        error = await error_of(asked)
        assert (error["type"], error["code"]) == ("invalid_request_error", "missing_scope")
        assert "team-k may not do this: it needs the scope 'inference'" in error["message"]


async def test_keys_by_hash_do_what_clients_do(gateway: aiohttp.ClientSession) -> None:
    assert (await gateway.get("/v1/models")).status == 200
    assert (await gateway.post(CHAT, json=chat())).status == 200


def test_a_principal_is_enough_on_an_open_address() -> None:
    settings = Settings(
        host="0.0.0.0", trusted_network=True, principals=(caller("k", "inference"),), engine_url="http://127.0.0.1:9"
    )
    assert [entry.id for entry in settings.callers] == ["team-k"]


async def test_every_route_has_a_scope(registry: FakeRegistry) -> None:
    app = build(Settings(engine_url="http://127.0.0.1:9"), registry=registry)
    paths = [route.path for route in app.router.routes if isinstance(route, Route)]
    assert "/v1/chat/completions" in paths
    scopes = {path: required_scope(path) for path in paths if path not in OPEN_PATHS}
    assert scopes.pop("/v1/models") == scopes.pop("/v1/models/{name:path}") == "models:read"
    assert set(scopes.values()) == {"inference"}


async def test_the_401_says_where_a_key_is(gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get("/v1/models", headers=by("wrong"))
    assert "'tuneloom key' prints the key" in (await error_of(response))["message"]


async def test_slow_bodies_of_one_key_shut_out_nobody(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(max_concurrent_requests=8, principals=(caller("other", "inference"),))
    async with AsyncExitStack() as stack:
        for _ in range(12):
            slow = await stack.enter_async_context(line(gateway))
            await slow.send(HEAD, b"Content-Length: 1000\r\n\r\n{")
        while (await gateway.post(CHAT, json=chat())).status != 429:  # until all of them have arrived
            pass
        refused = await error_of(await gateway.post(CHAT, json=chat()))
        assert refused["type"] == "rate_limit_error"
        assert "4 requests of key-" in refused["message"]
        assert "TUNELOOM_GATEWAY_MAX_CONCURRENT_REQUESTS_PER_KEY" in refused["message"]
        assert (await gateway.post(CHAT, json=chat(), headers=by("other"))).status == 200
    while (await gateway.post(CHAT, json=chat())).status != 200:  # until their going was noticed
        pass


async def test_bytes_of_bodies(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(max_bodies_bytes=40_000, principals=(caller("other", "inference"),))
    began, go = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request, __: Any) -> web.Response:
        began.set()
        await go.wait()
        return web.json_response({})

    engine.answer = answer
    body = json.dumps(chat(user="x" * 15_000)).encode()
    first = asyncio.create_task(gateway.post(CHAT, data=body))
    await began.wait()
    refused = await gateway.post(CHAT, data=body)
    assert refused.status == 429
    assert "MAX_BODIES_BYTES" in (await error_of(refused))["message"]
    others = asyncio.create_task(gateway.post(CHAT, data=body, headers=by("other")))
    go.set()
    assert [(await one).status for one in (first, others)] == [200, 200]
    assert (await gateway.post(CHAT, data=body)).status == 200


def test_held_bytes_are_given_back() -> None:
    budget = BodyBudget(100)
    with budget.hold("a") as one:
        one.add(30)
        with pytest.raises(TooManyRequests):
            one.add(21)
        with budget.hold("b") as other:
            other.add(50)
    assert (budget._held, set(budget._by_principal.values())) == (0, {0})


@pytest.mark.parametrize("role", ["human", "", None, 7, ["user"]])
async def test_unknown_roles(role: Any, gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": role, "content": "hi"} if role is not None else {}]
    response = await gateway.post(CHAT, json={"model": "assistant", "messages": messages})
    assert response.status == 400
    error = await error_of(response)
    assert (error["param"], error["code"]) == ("messages[1].role", "invalid_role")
    assert "system, developer, user, assistant, tool, function" in error["message"]
    assert engine.requests == []
