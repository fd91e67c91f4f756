"""The client: requests prepared as bytes, answers read as bytes, so that the client is not what is measured."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

KEY = "sk-benchmark"
MODEL = "assistant"
WARM_UP = 20
SEQUENTIAL = 400
STREAMS = 1000
CLIENTS = 32
PHASE_SECONDS = 2.0
CHUNKS = 64


class Connection(asyncio.Protocol):
    """A keep-alive connection that has one request in flight."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answered: asyncio.Future[bytes] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._answered is not None and not self._answered.done() and _is_complete(self._buffer):
            answer, self._buffer = self._buffer, b""
            self._answered.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionError("closed in mid-answer"))

    async def ask(self, request: bytes) -> None:
        """One request; anything but success ends the benchmark."""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        answer = await self._answered
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {answer[:500]!r}")


def _is_complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        return answer.endswith(b"0\r\n\r\n")
    length = int(lowered.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
    return len(body) >= length


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


def chat_request(port: int, *, stream: bool) -> bytes:
    """A chat request of ordinary size."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant. " * 20},
        {"role": "user", "content": "Who are you? " * 20},
    ]
    body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 16, "stream": stream}).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        "User-Agent: OpenAI/Python\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def one_after_the_other(port: int, *, stream: bool) -> list[float]:
    """Milliseconds of each request, until there are enough or the phase is over."""
    connection, request = await connect(port), chat_request(port, stream=stream)
    for _ in range(WARM_UP):
        await connection.ask(request)
    taken: list[float] = []
    until = time.perf_counter() + PHASE_SECONDS
    while len(taken) < (STREAMS if stream else SEQUENTIAL) and time.perf_counter() < until:
        began = time.perf_counter()
        await connection.ask(request)
        taken.append(1000 * (time.perf_counter() - began))
    connection.transport.close()
    return taken


async def together(port: int) -> tuple[int, float]:
    """(requests, seconds) of several clients that ask as fast as they are answered."""
    request = chat_request(port, stream=False)
    connections = [await connect(port) for _ in range(CLIENTS)]
    began = time.perf_counter()

    async def client(connection: Connection) -> int:
        done = 0
        while time.perf_counter() - began < PHASE_SECONDS:
            await connection.ask(request)
            done += 1
        return done

    done = sum(await asyncio.gather(*map(client, connections)))
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.transport.close()
    return done, elapsed


def p50_and_p95(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=20)[-1]
