"""A gateway of 1,024 descriptors under those who have no key."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.integration.gateway.conftest import KEY, MESSAGES, Start, url_of

SILENT = 3000
CHAT = json.dumps({"model": "assistant", "messages": MESSAGES})
KNOWN = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SILENT + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may have {hard} descriptors, the flood needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(process: Process) -> int:
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


def patient(port: int) -> float:
    """Seconds for a client that tries three times, as OpenAI's does, while connections are torn from it."""
    began = time.monotonic()
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/v1/chat/completions", CHAT, KNOWN)
            with connection.getresponse() as response:
                if response.status == 200:
                    return time.monotonic() - began
        except OSError:
            continue
        finally:
            connection.close()
    raise AssertionError("shut out")


async def ask(url: str) -> float:
    """Seconds a client with a key waits for its answer, on a connection of its own."""
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(url) as client,
        client.post("/v1/chat/completions", data=CHAT, headers=KNOWN) as response,
    ):
        assert response.status == 200, await response.text()
        await response.read()
    return time.monotonic() - began


async def test_silent_connections_shut_out_nobody(start: Start, many_descriptors: None) -> None:
    process = await start(descriptors=1024, HEADER_TIMEOUT_SECONDS="3")
    url = await url_of(process)
    port = int(url.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.socket()) for _ in range(SILENT)]
        for one in silent:
            one.setblocking(False)
        flood = asyncio.gather(*(loop.sock_connect(one, ("127.0.0.1", port)) for one in silent), return_exceptions=True)
        waits = await asyncio.to_thread(lambda: [patient(port) for _ in range(20)])
        await asyncio.wait_for(flood, 30)
        waits += [await ask(url) for _ in range(20)]
        assert max(waits) < 5, sorted(waits)[-5:]
        held = descriptors(process)
        assert held < 600
        deadline = time.monotonic() + 15
        while descriptors(process) > 100:
            assert time.monotonic() < deadline, "silent connections are kept"
            await asyncio.sleep(0.2)
    assert await ask(url) < 5


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nx: ", b"GET /", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000])
async def test_a_header_of_100_megabytes_costs_nothing(head: bytes, start: Start) -> None:
    process = await start()
    url = await url_of(process)
    await ask(url)
    before = cpu_seconds(process)
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(head)
    for _ in range(1600):
        writer.write(b"x" * (64 << 10))
        try:
            await writer.drain()
        except ConnectionError:
            break
    writer.transport.abort()
    await ask(url)
    assert cpu_seconds(process) - before < 0.2
