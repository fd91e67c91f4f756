"""What there is, and how the gateway is."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import OpenGateway, error_of
from tuneloom.registry.v1 import versions_pb2 as versions


async def test_the_list(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    body = await (await gateway.get("/v1/models")).json()
    assert body["object"] == "list"
    # No checkpoints, no collections of running jobs.
    assert [model["id"] for model in body["data"]] == ["assistant", "assistant@canary", "coach", "qwen"]
    second = registry.versions["assistant"][1]
    assert body["data"][1] == {
        "id": "assistant@canary",
        "object": "model",
        "created": second.create_time.seconds,
        "owned_by": "tuneloom",
        "kind": "adapter",
        "digest": second.digest,
        "version": "models/assistant/versions/2",
    }


async def test_a_model_without_a_default_is_listed_by_its_aliases(
    gateway: aiohttp.ClientSession, registry: FakeRegistry
) -> None:
    registry.aliases["coach"] = {"beta": 1}
    registry.aliases["qwen"] = {}
    body = await (await gateway.get("/v1/models")).json()
    assert [model["id"] for model in body["data"]] == ["assistant", "assistant@canary", "coach@beta"]


@pytest.mark.parametrize("name", ["assistant", "assistant@canary", "assistant:1", "job-7k@100"])
@pytest.mark.parametrize("quoted", [True, False])
async def test_one_model(name: str, quoted: bool, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get(f"/v1/models/{quote(name, safe='') if quoted else name}")
    assert response.status == 200
    assert (await response.json())["id"] == name


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v1/models/a/b", "/v1/models/"])
async def test_no_such_model(path: str, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get(path)
    assert response.status == 404
    assert (await error_of(response))["code"] == "model_not_found"


async def test_no_list_without_the_registry(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    registry.down = True
    response = await gateway.get("/v1/models")
    assert response.status == 503
    await error_of(response)


async def test_alive(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    registry.down = True
    response = await gateway.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_ready(gateway: aiohttp.ClientSession) -> None:
    response = await gateway.get("/readyz")
    assert (response.status, await response.json()) == (
        200,
        {"status": "ready", "checks": {"registry": "ok", "engine": "ok"}},
    )


async def test_not_ready_without_the_registry(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    registry.down = True
    response = await gateway.get("/readyz")
    body = await response.json()
    assert (response.status, body["status"], body["checks"]["engine"]) == (503, "not ready", "ok")
    assert "does not answer" in body["checks"]["registry"]


async def test_not_ready_without_the_engine(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(engine_url="http://127.0.0.1:9")
    response = await gateway.get("/readyz")
    assert response.status == 503
    assert (await response.json())["checks"] == {"registry": "ok", "engine": "the engine does not answer"}


async def test_hosted_engines_are_not_waited_for(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(engine_host_url="http://127.0.0.1:9")
    assert (await (await gateway.get("/readyz")).json())["checks"] == {"registry": "ok"}


async def test_a_failing_engine_is_counted(gateway: aiohttp.ClientSession, engine: FakeEngine) -> None:
    async def answer(_: web.Request, __: object) -> web.Response:
        return web.Response(status=500)

    engine.answer = answer
    await gateway.post("/v1/completions", json={"model": "assistant", "prompt": "x"})
    text = await (await gateway.get("/metrics")).text()
    assert 'tuneloom_gateway_upstream_errors_total{kind="status"} 1.0' in text
    assert "tuneloom_gateway_watching_registry 1.0" in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/assistant", "/healthz", "/readyz", "/metrics"])
async def test_head(path: str, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.head(path)
    assert response.status == 200
    assert await response.read() == b""
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("base", ["../../etc", "NOT A NAME", "x" * 300, ""])
async def test_one_broken_version_breaks_only_itself(
    base: str, gateway: aiohttp.ClientSession, registry: FakeRegistry
) -> None:
    nonsense = versions.Version()
    nonsense.CopyFrom(registry.versions["qwen"][0])
    nonsense.name = f"models/{base}/versions/1"
    registry.add("broken", "adapter", base=nonsense)
    registry.versions["coach"][0].manifest_json = "{}"
    response = await gateway.get("/v1/models")
    assert response.status == 200
    assert [model["id"] for model in (await response.json())["data"]] == ["assistant", "assistant@canary", "qwen"]
    for name in ("broken", "coach"):
        refused = await gateway.get(f"/v1/models/{name}")
        assert refused.status == 500
        assert "internal" not in (await error_of(refused))["code"]


async def test_readiness_is_found_out_once_a_second(gateway: aiohttp.ClientSession, registry: FakeRegistry) -> None:
    await asyncio.gather(*(gateway.get("/readyz", headers={"Authorization": ""}) for _ in range(50)))
    assert registry.lists == 1
