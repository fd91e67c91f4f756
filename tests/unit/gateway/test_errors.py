"""Requests that fail, each in OpenAI's shape with a next step, and nothing of the house behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import OpenGateway, chat, error_of
from tuneloom_common.errors import FailedPrecondition

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("raw", "says", "param"),
    [
        (b'{"model": "assistant",\n "messages": [}', "line 2 column 15 (character 37)", None),
        (b"", "empty", None),
        (b'{"model": "\xff"}', "byte 11 is not utf-8", None),
        (b"[" * 200_000, "nested too deeply", None),
        (b'{"model": "assistant", "seed": ' + b"9" * 5000 + b"}", "integer string", None),
        (b"[]", "array", None),
        (b"null", "null", None),
        (b'"assistant"', "string", None),
        (b'{"messages": []}', "'model' is missing", "model"),
        (b'{"model": 7, "messages": []}', "number", "model"),
        (b'{"model": null, "messages": []}', "null", "model"),
        (b'{"model": "assistant"}', "'messages' is missing", "messages"),
    ],
)
async def test_bad_bodies(raw: bytes, says: str, param: str | None, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.post(CHAT, data=raw)
    assert response.status == 400
    error = await error_of(response)
    assert says in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("asistant", "'assistant'"),
        ("assistant@canarry", "'assistant@canary'"),
        ("assistant:9", "'assistant'"),
        ("GPT-4", None),
        ("", None),
        ("\ud800", None),
        ("x" * 100_000, None),
        ("../../etc/passwd", None),
    ],
)
async def test_unknown_models(name: str, near: str | None, gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    response = await gateway.post(CHAT, data=json.dumps(chat(name)).encode())
    assert response.status == 404
    error = await error_of(response)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "GET /v1/models" in error["message"]
    assert ("did you mean" in error["message"]) == (near is not None)
    assert near is None or near in error["message"]
    assert len(error["message"]) < 500
    assert engine.requests == []


async def test_a_checkpoint_is_not_servable(gateway: aiohttp.ClientSession) -> None:
    response = await gateway.post(CHAT, json=chat("raw"))
    assert response.status == 400
    error = await error_of(response)
    assert (error["code"], error["param"]) == ("model_not_servable", "model")
    assert "models/raw/versions/1 is a trainer's checkpoint" in error["message"]


async def test_a_dataset_is_not_servable(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    registry.add("talks", "dataset")
    response = await gateway.post(CHAT, json=chat("talks"))
    assert response.status == 400
    assert "is a dataset" in (await error_of(response))["message"]


@pytest.mark.parametrize("damage", [{"digest": "f" * 64}, {"manifest_json": "{}"}])
async def test_what_the_registry_says_is_checked(
    damage: dict[str, str], gateway: aiohttp.ClientSession, registry: FakeRegistry, engine: FakeEngine
) -> None:
    for name, value in damage.items():
        setattr(registry.versions["coach"][0], name, value)
    response = await gateway.post(CHAT, json=chat("coach"))
    assert response.status == 500
    assert (await error_of(response))["code"] == "digest_mismatch"
    assert engine.requests == []


async def test_registry_down(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    registry.down = True
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    assert response.headers["retry-after"]
    assert "registry does not answer" in (await error_of(response))["message"]


async def test_an_error_of_ours_in_between_is_internal(open_gateway: OpenGateway) -> None:
    class Endpoints:
        async def urls(self, engine: str) -> list[str]:
            raise KeyError("/secret/path")

        async def close(self) -> None: ...

    gateway = await open_gateway(parts={"endpoints": Endpoints()})
    response = await gateway.post(CHAT, json=chat(), headers={"x-request-id": "find-me"})
    assert response.status == 500
    assert response.headers["x-request-id"] == "find-me"
    assert response.headers["x-served-model"] == "models/assistant/versions/1"
    error = await error_of(response)
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]


async def test_a_precondition_is_the_callers_matter(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    async def refuse() -> None:
        raise FailedPrecondition("not now", reason="NOT_NOW")

    registry.before_answer = refuse
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 400
    assert (await error_of(response))["code"] == "not_now"


UPSTREAM_ERRORS: list[tuple[int, Any, dict[str, Any]]] = [
    (
        400,
        {"error": {"message": "too many tokens", "type": "BadRequest", "param": "max_tokens", "code": 400}},
        {"message": "too many tokens", "type": "invalid_request_error", "param": "max_tokens", "code": None},
    ),
    (
        404,
        {"object": "error", "message": "The model `{engine_name}` does not exist.", "type": "NotFoundError"},
        {"message": "The model `assistant` does not exist.", "type": "invalid_request_error"},
    ),
    (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, {"message": '[{"loc": ["body"], "msg": "no"}]'}),
    (413, "<html>too large</html>", {"message": "<html>too large</html>", "type": "invalid_request_error"}),
    (429, {"error": {"message": "queue full", "code": "queue_full"}}, {"code": "queue_full"}),
    (
        500,
        {"error": {"message": "cannot open /srv/models/a/b.safetensors"}},
        {"message": "cannot open (a file of the engine)", "type": "server_error"},
    ),
    (400, {"error": {"message": "cannot fetch https://example.com/a/cat.png"}},
     {"message": "cannot fetch https://example.com/a/cat.png"}),
    (500, None, {"message": "the engine refused the request (500)"}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "said", "expected"), UPSTREAM_ERRORS)
async def test_errors_of_engines(
    status: int,
    said: Any,
    expected: dict[str, Any],
    gateway: aiohttp.ClientSession,
    engine: FakeEngine,
    registry: FakeRegistry,
) -> None:
    version = registry.versions["assistant"][0]

    async def answer(_: web.Request, __: Any) -> web.Response:
        if isinstance(said, str):
            return web.Response(text=said, status=status)
        text = "" if said is None else json.dumps(said).replace("{engine_name}", version.engine_name)
        return web.Response(text=text, status=status, headers={"retry-after": "7"})

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat(stream=True))
    assert response.status == status
    assert response.headers["x-served-model-digest"] == version.digest
    error = await error_of(response)
    assert {key: error[key] for key in expected} == expected
    if not isinstance(said, str):
        assert response.headers.getall("retry-after") == ["7"]


@pytest.mark.parametrize("status", [401, 403, 302])
async def test_a_misconfigured_engine_is_not_the_callers_fault(
    status: int, gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    async def answer(_: web.Request, __: Any) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://10.0.0.1/"})

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    assert "location" not in response.headers
    assert (await error_of(response))["code"] == "engine_misconfigured"


async def test_engine_down(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(engine_url="http://127.0.0.1:9")
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    error = await error_of(response)
    assert error["code"] == "engine_unavailable"
    assert "try again" in error["message"]
    assert "127.0.0.1" not in error["message"]


async def test_a_silent_engine(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(engine_read_timeout_seconds=0.5)

    async def answer(_: web.Request, __: Any) -> web.Response:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 504
    assert "TUNELOOM_GATEWAY_ENGINE_READ_TIMEOUT_SECONDS" in (await error_of(response))["message"]
    assert len(engine.requests) == 1
