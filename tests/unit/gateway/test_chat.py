"""Requests that reach an engine, and what comes back."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import MESSAGES, OpenGateway, chat, error_of


@pytest.mark.parametrize(
    ("name", "version", "replica_is_base"),
    [
        ("assistant", ("assistant", 1), True),
        ("assistant@default", ("assistant", 1), True),
        ("assistant@canary", ("assistant", 2), True),
        ("assistant:2", ("assistant", 2), True),
        ("assistant@sha256:{digest}", ("assistant", 2), True),
        ("{engine_name}", ("assistant", 2), True),
        ("job-7k@100", ("job-7k", 1), True),
        ("qwen", ("qwen", 1), False),
        ("coach", ("coach", 1), False),
    ],
)
async def test_every_form_of_a_name(
    name: str,
    version: tuple[str, int],
    replica_is_base: bool,
    registry: FakeRegistry,
    engine: FakeEngine,
    open_gateway: OpenGateway,
) -> None:
    class Endpoints:
        asked: list[str] = []  # noqa: RUF012

        async def urls(self, name: str) -> list[str]:
            self.asked.append(name)
            return [engine.url]

        async def close(self) -> None: ...

    expected = registry.versions[version[0]][version[1] - 1]
    second = registry.versions["assistant"][1]
    name = name.format(digest=second.digest, engine_name=second.engine_name)
    gateway = await open_gateway(parts={"endpoints": Endpoints()})

    response = await gateway.post("/v1/chat/completions", json=chat(name))

    assert response.status == 200, await response.text()
    assert engine.requests[0][1]["model"] == expected.engine_name
    assert response.headers["x-served-model"] == expected.name
    assert response.headers["x-served-model-digest"] == expected.digest
    base = registry.versions["qwen"][0]
    assert Endpoints.asked == [base.engine_name if replica_is_base else expected.engine_name]
    Endpoints.asked.clear()


async def test_only_the_model_changes(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    more: dict[str, Any] = {
        "temperature": 0.30000000000000004,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"model": "assistant"}}}],
        "guided_json": {"type": "object"},
        "vllm_xargs": {"new": [1, 2.5, None, "ü\u2028"]},
        "seed": 2**53 + 1,
    }
    response = await gateway.post("/v1/chat/completions", json=chat("assistant", **more))
    assert response.status == 200
    path, body, _ = engine.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {"model": body["model"], "messages": MESSAGES, **more}


async def test_the_answer_is_the_engines_bytes(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    said = b'{ "odd" : 1e400,\n"model":"x"}'

    async def answer(_: web.Request, __: Any) -> web.Response:
        return web.Response(body=said, content_type="application/json", headers={"x-secret": "s", "server": "engine"})

    engine.answer = answer
    response = await gateway.post("/v1/chat/completions", json=chat())
    assert await response.read() == said
    assert "x-secret" not in response.headers
    assert "server" not in response.headers


@pytest.mark.parametrize(
    ("path", "engine_path", "body"),
    [
        ("/v1/completions", "/v1/completions", {"prompt": "x"}),
        ("/v1/tokenize", "/tokenize", {"prompt": "x"}),
        ("/v1/detokenize", "/detokenize", {"tokens": [1]}),
    ],
)
async def test_other_allowed_routes(
    path: str, engine_path: str, body: dict[str, Any], gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    response = await gateway.post(path, json={"model": "assistant", **body})
    assert response.status == 200
    assert engine.requests[0][0] == engine_path


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pause", "/v1/load_lora_adapter", "/invocations", "/v1/", "/"])
async def test_nothing_else_is_forwarded(path: str, gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    response = await gateway.post(path, json=chat())
    assert response.status == 404
    assert (await error_of(response))["code"] == "unknown_route"
    assert engine.requests == []


async def test_wrong_method(gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get("/v1/chat/completions")
    assert response.status == 405
    assert response.headers["allow"] == "POST"
    assert "use POST" in (await error_of(response))["message"]


async def test_headers_of_the_client_stay_here(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    sent = {
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "traceparent": "00-1-2-01",
        "X-Request-Id": "mine-1",
    }
    response = await gateway.post("/v1/chat/completions", json=chat(), headers=sent)
    assert response.headers["x-request-id"] == "mine-1"
    arrived = engine.requests[0][2]
    assert arrived.keys() == {
        "host", "content-type", "content-length", "accept", "accept-encoding", "x-request-id", "traceparent",
    }  # fmt: skip
    assert arrived["x-request-id"] == "mine-1"
    assert arrived["accept-encoding"] == "identity"


@pytest.mark.parametrize("bad", ["", "has space", "x" * 129, "ü"])
async def test_an_unusable_request_id_is_replaced(bad: str, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.post("/v1/chat/completions", json=chat(), headers={"X-Request-Id": bad})
    assert response.headers.getall("x-request-id") != [bad]
    assert response.headers["x-request-id"].startswith("req-")


async def test_the_engines_key_is_sent(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    gateway = await open_gateway(engine_api_key="for-the-engine")
    await gateway.post("/v1/chat/completions", json=chat())
    assert engine.requests[0][2]["authorization"] == "Bearer for-the-engine"


async def test_large_bodies_pass(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    content = "data:image/png;base64," + "A" * (3 << 20)
    body = {"model": "assistant", "messages": [{"role": "user", "content": content}]}
    raw = io.BytesIO(json.dumps(body).encode())
    response = await gateway.post("/v1/chat/completions", data=raw)
    assert response.status == 200, await response.text()
    assert engine.requests[0][1]["messages"] == body["messages"]


async def test_tokens_and_requests_are_counted(gateway: aiohttp.ClientSession) -> None:
    await gateway.post("/v1/chat/completions", json=chat())
    streamed = await gateway.post("/v1/chat/completions", json=chat(stream=True))
    await streamed.read()
    await gateway.post("/v1/chat/completions", json=chat("nobody"))
    text = await (await gateway.get("/metrics")).text()
    assert 'tuneloom_gateway_tokens_total{kind="completion",model="assistant"} 6.0' in text
    assert 'tuneloom_gateway_tokens_total{kind="prompt",model="assistant"} 10.0' in text
    route = 'route="/v1/chat/completions"'
    assert f'tuneloom_gateway_requests_total{{model="assistant",{route},status="200"}} 2.0' in text
    assert f'tuneloom_gateway_requests_total{{model="",{route},status="404"}} 1.0' in text
    assert f"tuneloom_gateway_first_byte_seconds_count{{{route}}} 1.0" in text
