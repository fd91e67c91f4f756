"""The real process over HTTPS, with the official client."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import web

from tests.authority import Authority, Files
from tests.fakes import FakeEngine, FakeRegistry, event, serve_registry
from tests.integration.gateway.conftest import KEY, MESSAGES, Start
from tuneloom_common.tls import ServerTls

DESCRIPTORS = 256


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> Files:
    return authority.issue("gateway")


def secured(files: Files, **settings: str) -> dict[str, str]:
    return {"TLS_CERTIFICATE": str(files.certificate), "TLS_KEY": str(files.key), **settings}


async def port_of(process: Process) -> int:
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"listens on https://127\.0\.0\.1:(\d+)", line)
    assert found, line
    return int(found[1])


@asynccontextmanager
async def connected(
    port: int, authority: Authority, files: Files | None = None, *, host: str = "localhost"
) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client that trusts an authority."""
    context = ssl.create_default_context(cafile=authority.path)
    if files:
        context.load_cert_chain(files.certificate, files.key)
    async with openai.AsyncOpenAI(
        base_url=f"https://{host}:{port}/v1",
        api_key=KEY,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=context),
    ) as client:
        yield client


async def chat(client: openai.AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(model="assistant", messages=MESSAGES)
    return answer.choices[0].message.content


async def refused(port: int, authority: Authority, files: Files | None = None, *, host: str = "localhost") -> str:
    async with connected(port, authority, files, host=host) as client:
        with pytest.raises(openai.APIConnectionError) as caught:
            await chat(client)
    return str(caught.value.__cause__)


async def test_chat_and_what_is_no_right_certificate(
    start: Start, files: Files, authority: Authority, tmp_path: Path
) -> None:
    port = await port_of(await start(**secured(files)))
    async with connected(port, authority) as client:
        assert await chat(client) == "hello there"
        stream = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream if chunk.choices] == ["hello", " there"]
    async with connected(port, authority, host="127.0.0.1") as client:
        assert await chat(client) == "hello there"
    assert "CERTIFICATE_VERIFY_FAILED" in await refused(port, Authority(tmp_path, "other"))
    async with httpx2.AsyncClient() as plain:
        with pytest.raises(httpx2.RemoteProtocolError):
            await plain.get(f"http://localhost:{port}/healthz")


async def test_what_is_refused_early_is_told_over_tls_too(start: Start, files: Files, authority: Authority) -> None:
    port = await port_of(await start(**secured(files)))
    async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=authority.path)) as client:
        answer = await client.get(f"https://localhost:{port}/", headers={"x": "y" * (40 << 10)})
    assert answer.status_code == 431


async def test_a_client_certificate_lets_in_and_the_key_decides(
    start: Start, files: Files, authority: Authority, tmp_path: Path
) -> None:
    port = await port_of(await start(**secured(files, TLS_CLIENT_CA=str(authority.path))))
    mine = authority.issue("client")
    async with connected(port, authority, mine) as client:
        assert await chat(client) == "hello there"
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
    await refused(port, authority)
    await refused(port, authority, Authority(tmp_path, "stranger").issue("strange"))
    await refused(port, authority, authority.issue("expired", valid_from=-2, valid_to=-1))


async def test_rotated_in_mid_stream(
    start: Start, files: Files, authority: Authority, tmp_path: Path, engine: FakeEngine
) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in ("hello", " there"):
            delta = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            await response.write(event({"id": "1", "created": 1, "model": body["model"], "choices": [delta]}))
            await go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    engine.answer = slow
    process = await start(**secured(files))
    port = await port_of(process)
    async with connected(port, authority) as client:
        stream = await client.chat.completions.create(model="assistant", messages=MESSAGES, stream=True)
        words = aiter(stream)
        assert (await anext(words)).choices[0].delta.content == "hello"
        renewed = Authority(tmp_path, "renewed")
        before = files.key.read_bytes()
        files.key.write_bytes(b"half")
        async with connected(port, authority) as another:  # the old pair stays while the new one is not whole
            assert [model.id async for model in another.models.list()] == ["assistant", "qwen"]
        files.key.write_bytes(before)
        renewed.issue("gateway")
        async with connected(port, renewed) as another:
            assert [model.id async for model in another.models.list()] == ["assistant", "qwen"]
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(port, authority)
        go_on.set()
        assert (await anext(words)).choices[0].delta.content == " there"
    assert process.stderr is not None
    log = [(await process.stderr.readline()).decode() for _ in range(2)]
    assert str(files.key) in log[0]
    assert "certificates were renewed" in log[1]


def say_nothing(port: int, context: ssl.SSLContext) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def do_not_let_go(port: int, context: ssl.SSLContext) -> socket.socket:
    """Asks without a key, and has no part in closing the connection."""
    connection = context.wrap_socket(say_nothing(port, context), server_hostname="localhost")
    connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    return connection


@pytest.mark.parametrize("hold", [say_nothing, do_not_let_go])
async def test_who_has_no_key_shuts_out_nobody(
    start: Start, files: Files, authority: Authority, hold: Callable[[int, ssl.SSLContext], socket.socket]
) -> None:
    """As over plain text: connections count from their accept until they are closed."""
    process = await start(descriptors=DESCRIPTORS, **secured(files))
    port = await port_of(process)
    context = ssl.create_default_context(cafile=authority.path)
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(await asyncio.to_thread(hold, port, context))
        async with connected(port, authority) as client:
            assert await chat(client) == "hello there"
        assert sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir()) < DESCRIPTORS // 2


async def test_plain_text_on_an_open_address_is_refused(start: Start) -> None:
    process = await start(HOST="0.0.0.0")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("TUNELOOM_GATEWAY_TLS_CERTIFICATE: ")
    assert "TUNELOOM_GATEWAY_TRUSTED_NETWORK=true" in errors.decode()


async def test_a_bad_pair_stops_the_start_by_name(start: Start, files: Files, authority: Authority) -> None:
    for settings in (
        secured(Files(files.certificate, authority.issue("other").key)),
        {"REGISTRY_CA": str(files.certificate.with_name("missing.crt"))},
    ):
        process = await start(**settings)
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in errors.decode()
        assert re.search(r"(other\.key do not belong|missing\.crt cannot be read)", errors.decode())


async def test_the_registry_is_called_with_tls_and_the_gateways_own_certificate(
    start: Start, files: Files, authority: Authority, registry: FakeRegistry
) -> None:
    tls = ServerTls(authority.issue("registry", hosts=["registry.example"]).pair, authority.path)
    mine = authority.issue("client")
    async with serve_registry(registry, token="registry-token", tls=tls) as address:
        settings = {
            "REGISTRY_ADDRESS": address,
            "REGISTRY_CA": str(authority.path),
            "REGISTRY_SERVER_NAME": "registry.example",
        }
        port = await port_of(await start(**secured(files), **settings))
        async with connected(port, authority) as client:
            with pytest.raises(openai.InternalServerError, match="TUNELOOM_GATEWAY_REGISTRY_CERTIFICATE"):
                await chat(client)
        settings |= {"REGISTRY_CERTIFICATE": str(mine.certificate), "REGISTRY_KEY": str(mine.key)}
        port = await port_of(await start(**secured(files), **settings))
        async with connected(port, authority) as client:
            assert await chat(client) == "hello there"
