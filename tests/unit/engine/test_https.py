"""The gateway's way to a host that speaks TLS and asks for a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from tests.authority import Authority, Files
from tests.unit.engine.conftest import Fleet, MakeSettings
from tests.unit.engine.fakes import FakeRegistry
from tuneloom_common.errors import Unavailable
from tuneloom_common.tls import PeerTls, ServerTls
from tuneloom_engine.app import build
from tuneloom_engine.server import listen, serving
from tuneloom_gateway.routing.endpoints import HostedEndpoints

SETTING = "TUNELOOM_GATEWAY_ENGINE_HOST_"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def port(make_settings: MakeSettings, authority: Authority, fleet: Fleet) -> AsyncIterator[int]:
    settings = make_settings(port=0, token=SecretStr("host-token"))
    listener = listen(settings)
    tls = ServerTls(authority.issue("host").pair, authority.path)
    async with serving(build(settings), listener, max_connections=8, tls=tls):
        yield listener.getsockname()[1]


@asynccontextmanager
async def endpoints(
    port: int, authority: Authority, files: Files | None, *, server_name: str = ""
) -> AsyncIterator[HostedEndpoints]:
    tls = PeerTls(str(authority.path), files.pair if files else None, server_name, SETTING)
    async with aiohttp.ClientSession() as session:
        yield HostedEndpoints(
            f"https://localhost:{port}", session, start_timeout_seconds=60, token=SecretStr("host-token"), tls=tls
        )


async def test_an_engine_is_started_over_tls(port: int, authority: Authority, registry: FakeRegistry) -> None:
    engine = await registry.publish_model("seed")
    async with endpoints(port, authority, authority.issue("gateway")) as hosted:
        assert (await hosted.urls(engine))[0].startswith("unix:")


async def test_what_keeps_it_from_the_host_is_named(
    port: int, authority: Authority, registry: FakeRegistry, tmp_path: Path
) -> None:
    other, mine = Authority(tmp_path, "other"), authority.issue("gateway")
    wrong = [
        (endpoints(port, authority, None), f"{SETTING}CERTIFICATE"),
        (endpoints(port, authority, other.issue("strange")), "strange.crt"),
        (endpoints(port, other, mine), f"{SETTING}CA"),
        (endpoints(port, authority, mine, server_name="elsewhere.example"), "elsewhere.example"),
    ]
    for context, named in wrong:
        async with context as hosted:
            with pytest.raises(Unavailable, match=named) as caught:
                await hosted.urls("seed--012345678901")
            assert caught.value.reason == "HANDSHAKE_FAILED"


@pytest.mark.parametrize("greeted", [False, True], ids=["during handshakes", "after them"])
async def test_who_says_nothing_makes_room(make_settings: MakeSettings, authority: Authority, greeted: bool) -> None:
    listener = listen(settings := make_settings(port=0))
    tls = ServerTls(authority.issue("host").pair)
    context = PeerTls(str(authority.path)).context()
    asking = b"GET /replicas HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving(build(settings), listener, max_connections=3, tls=tls):
        port = listener.getsockname()[1]
        silent = [await asyncio.open_connection("localhost", port, ssl=context if greeted else None) for _ in range(9)]
        for _ in range(4):
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            writer.write(asking)
            async with asyncio.timeout(5):
                assert (await reader.read()).startswith(b"HTTP/1.1 ")
            writer.close()
        async with asyncio.timeout(5):
            for reader, writer in silent[:7]:
                assert await reader.read() == b""
                writer.close()
        for _, writer in silent[7:]:
            writer.close()
