"""What somebody without a token can hold of the host, tried with raw sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.unit.engine.conftest import Fleet, MakeSettings
from tests.unit.engine.fakes import FakeRegistry
from tuneloom_common.errors import FailedPrecondition
from tuneloom_engine.app import build
from tuneloom_engine.server import HEADER_LINE_BYTES, HEADERS, listen, serving

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def listening(make_settings: MakeSettings, *, connections: int = 8, seconds: float = 10) -> AsyncIterator[int]:
    settings = make_settings(port=0, max_connections=connections)
    listener = listen(settings)
    async with serving(build(settings), listener, max_connections=connections, header_seconds=seconds):
        yield listener.getsockname()[1]


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_request_is_answered_and_the_connection_closed(make_settings: MakeSettings) -> None:
    async with listening(make_settings) as port:
        assert (await exchange(port, HEALTH)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 2 * HEADER_LINE_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2 * HEADER_LINE_BYTES + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 8 * HEADER_LINE_BYTES,  # never ends
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(2 * HEADERS)) + b"\r\n",
    ],
    ids=["path", "header", "endless header", "headers"],
)
async def test_too_much_header_is_refused_at_once(make_settings: MakeSettings, request_: bytes) -> None:
    async with listening(make_settings) as port:
        assert (await exchange(port, request_))[:12] in (b"HTTP/1.0 400", b"")


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nHost: local"], ids=["silent", "half a header"])
async def test_who_does_not_get_on_is_cut_off(make_settings: MakeSettings, start: bytes) -> None:
    async with listening(make_settings, seconds=0.1) as port:
        assert await exchange(port, start) == b""


async def test_slow_bytes_win_no_time(make_settings: MakeSettings) -> None:
    async with listening(make_settings, seconds=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        async with asyncio.timeout(5):
            while not reader.at_eof():
                writer.write(b"X: a\r\n")
                try:
                    await asyncio.wait_for(reader.read(1), 0.02)
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
        writer.close()


async def test_who_says_nothing_makes_room_for_who_asks(make_settings: MakeSettings) -> None:
    async with listening(make_settings, connections=3) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
        for _ in range(3):
            assert (await exchange(port, HEALTH)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(5):
            for reader, writer in silent[:6]:
                assert await reader.read() == b""
                writer.close()
        for _, writer in silent[6:]:
            writer.close()


async def test_who_asks_is_not_cut_off_for_another(
    make_settings: MakeSettings, registry: FakeRegistry, fleet: Fleet
) -> None:
    registry.hold.clear()
    request = b"POST /replicas/chat--0123456789ab HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with listening(make_settings, connections=2) as port:
        waiting = [asyncio.create_task(exchange(port, request)) for _ in range(2)]
        async with asyncio.timeout(5):
            while not registry.asked or await exchange(port, HEALTH):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        registry.hold.set()
        assert {(await answer)[:12] for answer in waiting} == {b"HTTP/1.1 404"}
        async with asyncio.timeout(5):
            while not (await exchange(port, HEALTH)).startswith(b"HTTP/1.1 200 "):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_malformed_requests_are_not_quoted_in_the_log(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with listening(make_settings) as port:
        for request in (b"Authorization: secret\r\n\r\n", b"GET / HTTP/1.1\r\nX: secret" + b"a" * 9999 + b"\r\n\r\n"):
            assert (await exchange(port, request)).startswith(b"HTTP/1.0 400 ")
    assert "secret" not in caplog.text + "".join(capsys.readouterr())


async def test_a_taken_port_is_named_with_its_setting(make_settings: MakeSettings) -> None:
    async with listening(make_settings) as port:
        with pytest.raises(FailedPrecondition, match="TUNELOOM_ENGINE_PORT"):
            listen(make_settings(port=port))
