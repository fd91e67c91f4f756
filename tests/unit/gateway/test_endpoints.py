"""Engines that an engine host starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import OpenGateway, chat, error_of, until

CHAT = "/v1/chat/completions"


class FakeEngineHost(FakeEngine):
    """Answers with the URLs in `urls` one after the other, the last one again and again."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.urls = urls
        self.answer = self.point
        self.gate: asyncio.Event | None = None

    async def point(self, request: web.Request, _: Any) -> web.Response:
        assert request.method == "POST"
        if self.gate is not None:
            await self.gate.wait()
        return web.json_response({"url": self.urls.pop(0) if len(self.urls) > 1 else self.urls[0]})

    @property
    def asked(self) -> list[str]:
        return [path.removeprefix("/replicas/") for path, _, _ in self.requests]


@pytest.fixture
async def host(engine: FakeEngine) -> AsyncIterator[FakeEngineHost]:
    async with FakeEngineHost([engine.url]).running() as host:
        assert isinstance(host, FakeEngineHost)
        yield host


async def test_adapters_share_the_engine_of_their_base(
    open_gateway: OpenGateway, host: FakeEngineHost, registry: FakeRegistry
) -> None:
    gateway = await open_gateway(engine_host_url=host.url)
    for name in ("assistant", "assistant:2", "qwen", "coach", "assistant"):
        assert (await gateway.post(CHAT, json=chat(name))).status == 200
    base, merged = registry.versions["qwen"][0], registry.versions["coach"][0]
    assert host.asked == [base.engine_name, merged.engine_name]


async def test_a_burst_asks_the_host_once(open_gateway: OpenGateway, host: FakeEngineHost) -> None:
    host.gate = asyncio.Event()
    gateway = await open_gateway(engine_host_url=host.url)
    burst = [asyncio.create_task(gateway.post(CHAT, json=chat())) for _ in range(20)]
    await until(lambda: len(host.asked) == 1)
    burst[0].cancel()  # the one that asked leaves, the others still get their engine
    await asyncio.gather(burst[0], return_exceptions=True)
    host.gate.set()
    responses = await asyncio.gather(*burst[1:])
    assert {response.status for response in responses} == {200}
    assert len(host.asked) == 1


async def test_an_engine_that_moved_is_found_again(
    open_gateway: OpenGateway, host: FakeEngineHost, engine: FakeEngine
) -> None:
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(FakeEngine().running())
        host.urls = [old.url, engine.url]
        gateway = await open_gateway(engine_host_url=host.url)
        assert (await gateway.post(CHAT, json=chat())).status == 200
        assert len(old.requests) == 1
        await stack.aclose()  # killed with connections idle
        responses = await asyncio.gather(*(gateway.post(CHAT, json=chat()) for _ in range(10)))
        assert {response.status for response in responses} == {200}
        assert len(engine.requests) == 10
        assert len(host.asked) == 2


async def test_a_port_that_another_engine_got(
    open_gateway: OpenGateway, host: FakeEngineHost, engine: FakeEngine
) -> None:
    async def unknown(_: web.Request, __: Any) -> web.Response:
        return web.json_response({"error": {"message": "The model does not exist."}}, status=404)

    async with FakeEngine().running() as other:
        host.urls = [other.url, engine.url]
        gateway = await open_gateway(engine_host_url=host.url)
        assert (await gateway.post(CHAT, json=chat())).status == 200
        other.answer = unknown  # the engine was evicted, and this is another one at its port
        assert (await gateway.post(CHAT, json=chat())).status == 200
    assert (len(other.requests), len(engine.requests), len(host.asked)) == (2, 1, 2)
    engine.answer = unknown  # the right engine, and it really does not know: no second attempt
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 404
    assert (await error_of(response))["message"] == "The model does not exist."
    assert (len(engine.requests), len(host.asked)) == (2, 3)


async def test_an_engine_that_resets_is_tried_once_more(
    open_gateway: OpenGateway, host: FakeEngineHost, engine: FakeEngine
) -> None:
    async def reset(request: web.Request, _: Any) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    engine.answer = reset
    gateway = await open_gateway(engine_host_url=host.url)
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    assert (await error_of(response))["code"] == "engine_unavailable"
    assert len(engine.requests) == 2
    assert len(host.asked) == 2


@pytest.mark.parametrize(
    ("status", "said", "expected", "words"),
    [
        (404, {"error": "no such version"}, 404, ["no such version"]),
        (
            503,
            {"error": "not enough memory", "next_step": "stop another model"},
            503,
            ["memory", "stop another"],
        ),
        (
            503,
            {"error": "not enough memory", "next step": "stop another model"},
            503,
            ["memory", "stop another"],
        ),
        (500, None, 503, ["status 500"]),
        (503, {"error": "see .home/engine/logs/a.log or /srv/logs/a.log"}, 503, ["see (a file of the engine) or (a"]),
        (200, {"port": 1}, 503, ["status 200"]),
    ],
)
async def test_the_host_refuses(
    status: int,
    said: Any,
    expected: int,
    words: list[str],
    open_gateway: OpenGateway,
    host: FakeEngineHost,
) -> None:
    async def refuse(_: web.Request, __: Any) -> web.Response:
        return web.json_response(said, status=status)

    host.answer = refuse
    gateway = await open_gateway(engine_host_url=host.url)
    response = await gateway.post(CHAT, json=chat())
    assert response.status == expected
    message = (await error_of(response))["message"]
    assert all(word in message for word in words)
    host.answer = host.point  # a refusal is not remembered
    assert (await gateway.post(CHAT, json=chat())).status == 200


async def test_no_host(open_gateway: OpenGateway) -> None:
    gateway = await open_gateway(engine_host_url="http://127.0.0.1:9")
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    error = await error_of(response)
    assert error["code"] == "engine_host_unavailable"
    assert "127.0.0.1" not in error["message"]


async def test_an_engine_that_takes_too_long(open_gateway: OpenGateway, host: FakeEngineHost) -> None:
    host.gate = asyncio.Event()
    gateway = await open_gateway(engine_host_url=host.url, engine_start_timeout_seconds=1)
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 504
    assert "still starting" in (await error_of(response))["message"]
    host.gate.set()
    assert (await gateway.post(CHAT, json=chat())).status == 200


async def test_closing_ends_what_is_starting(registry: FakeRegistry, host: FakeEngineHost, engine: FakeEngine) -> None:
    from tuneloom_gateway.routing.endpoints import HostedEndpoints

    host.gate = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        endpoints = HostedEndpoints(host.url, session, start_timeout_seconds=60)
        waiting = asyncio.create_task(endpoints.urls("qwen--0123456789ab"))
        await until(lambda: len(host.asked) == 1)
        await endpoints.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@asynccontextmanager
async def on_a_socket(engine: FakeEngine) -> AsyncIterator[str]:
    """The same engine on a Unix socket, as an engine host runs one."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    with TemporaryDirectory() as directory:  # pytest's own paths are longer than sockets bear
        await web.UnixSite(runner, f"{directory}/1.sock").start()
        yield f"unix:{directory}/1.sock"
        await runner.cleanup()


async def test_an_engine_may_listen_on_a_unix_socket(
    open_gateway: OpenGateway, host: FakeEngineHost, engine: FakeEngine
) -> None:
    async with on_a_socket(engine) as url:
        host.urls = [url]
        gateway = await open_gateway(engine_host_url=host.url)
        for _ in range(3):
            response = await gateway.post(CHAT, json=chat(stream=True))
            assert (response.status, b"[DONE]" in await response.read()) == (200, True)
    assert len(engine.requests) == 3


async def test_an_engine_that_came_back_on_another_socket_is_found(
    open_gateway: OpenGateway, host: FakeEngineHost, engine: FakeEngine
) -> None:
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(on_a_socket(engine))
        new = await stack.enter_async_context(on_a_socket(engine))
        host.urls = [old, new]
        gateway = await open_gateway(engine_host_url=host.url)
        assert (await gateway.post(CHAT, json=chat())).status == 200
        Path(old.removeprefix("unix:")).unlink()
        await asyncio.sleep(0)
        gateway_answers = [await gateway.post(CHAT, json=chat()) for _ in range(2)]
        assert {answer.status for answer in gateway_answers} == {200}


async def test_the_engine_host_gets_its_token(open_gateway: OpenGateway, host: FakeEngineHost) -> None:
    gateway = await open_gateway(engine_host_url=host.url, engine_host_token=SecretStr("host-token"))
    assert (await gateway.post(CHAT, json=chat())).status == 200
    assert [headers["authorization"] for _, _, headers in host.requests] == ["Bearer host-token"]


async def test_a_token_that_the_engine_host_refuses_is_the_gateway_s_fault(
    open_gateway: OpenGateway, host: FakeEngineHost
) -> None:
    async def refuse(request: web.Request, _: Any) -> web.Response:
        return web.json_response({"error": "the token is missing", "reason": "INVALID_TOKEN"}, status=401)

    host.answer = refuse
    gateway = await open_gateway(engine_host_url=host.url)
    response = await gateway.post(CHAT, json=chat())
    assert response.status == 503
    assert "TUNELOOM_GATEWAY_ENGINE_HOST_TOKEN" in (await error_of(response))["message"]


async def test_requests_that_wait_for_a_start_do_not_hold_all_places(
    open_gateway: OpenGateway, host: FakeEngineHost
) -> None:
    host.gate = asyncio.Event()
    gateway = await open_gateway(engine_host_url=host.url, max_concurrent_requests=40)
    waiting = [asyncio.create_task(gateway.post(CHAT, json=chat())) for _ in range(10)]
    more = await gateway.post(CHAT, json=chat())
    while more.status != 503:
        more = await gateway.post(CHAT, json=chat())
    assert (await error_of(more))["code"] == "engine_starting"
    host.gate.set()
    assert {(await one).status for one in waiting} == {200}


async def test_a_failed_start_tells_when_to_come_back(open_gateway: OpenGateway, host: FakeEngineHost) -> None:
    async def refuse(_: web.Request, __: Any) -> web.Response:
        said = {"error": "out of memory", "reason": "ENGINE_FAILED", "log": "…", "retry_after_seconds": 19.5}
        return web.json_response(said, status=503)

    host.answer = refuse
    gateway = await open_gateway(engine_host_url=host.url)
    response = await gateway.post(CHAT, json=chat())
    assert (response.status, response.headers["retry-after"]) == (503, "20")
    assert (await error_of(response))["code"] == "engine_failed"


async def test_another_endpoint_when_one_is_lost(open_gateway: OpenGateway, engine: FakeEngine) -> None:
    forgotten: list[str] = []

    class Two:
        async def urls(self, name: str) -> list[str]:
            return ["http://127.0.0.1:9", engine.url]

        def forget(self, name: str, url: str) -> None:
            forgotten.append(url)

        async def close(self) -> None: ...

    gateway = await open_gateway(parts={"endpoints": Two(), "random": lambda: 0.0})
    assert (await gateway.post(CHAT, json=chat())).status == 200
    assert forgotten == ["http://127.0.0.1:9"]
    assert len(engine.requests) == 1
