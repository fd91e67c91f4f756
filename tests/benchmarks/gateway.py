"""What the gateway adds to a request: `python tests/benchmarks/gateway.py`, about 30 seconds, loopback only.

Three processes: a fake engine that answers at once (with a fake registry), the gateway pinned to one core,
and this one, which loads the engine directly and through the gateway in turn. Client and engine speak HTTP
from bytes prepared in advance, so that on two cores the gateway is what is measured. The last line is one
JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3
SEQUENTIAL = 400
CLIENTS = 32
CONCURRENT_SECONDS = 2.0
STREAMS = 150
CHUNKS = 64
KEY = "sk-benchmark"
MODEL = "assistant"
ENGINE_PORT, REGISTRY_PORT, GATEWAY_PORT = 18431, 18432, 18433
UNITS = {
    "sequential_p50_ms": "ms", "sequential_p95_ms": "ms", "requests_per_second": "1/s", "stream_p50_ms": "ms",
    "overhead_p50_ms": "ms", "requests_per_cpu_second": "1/s", "resident_mb": "MB",
}  # fmt: skip


class Connection(asyncio.Protocol):
    """A client's keep-alive connection that has one request in flight."""

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

    async def exchange(self, request: bytes) -> bytes:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answered


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


def request_bytes(port: int, *, stream: bool) -> bytes:
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


async def latencies(port: int, *, stream: bool, count: int) -> list[float]:
    """Milliseconds of requests one after the other."""
    connection, request = await connect(port), request_bytes(port, stream=stream)
    taken = []
    for number in range(count + 20):
        began = time.perf_counter()
        answer = await connection.exchange(request)
        if number >= 20:  # the first ones warm up
            taken.append(1000 * (time.perf_counter() - began))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {answer[:500]!r}")
    connection.transport.close()
    return taken


async def throughput(port: int) -> float:
    """Requests per second of several clients."""
    request = request_bytes(port, stream=False)
    connections = [await connect(port) for _ in range(CLIENTS)]
    began = time.perf_counter()

    async def client(connection: Connection) -> int:
        done = 0
        while time.perf_counter() - began < CONCURRENT_SECONDS:
            answer = await connection.exchange(request)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {answer[:500]!r}")
            done += 1
        return done

    done = sum(await asyncio.gather(*map(client, connections)))
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.transport.close()
    return done / elapsed


async def measure(port: int) -> dict[str, float]:
    """One round."""
    sequential = await latencies(port, stream=False, count=SEQUENTIAL)
    rate = await throughput(port)
    streams = await latencies(port, stream=True, count=STREAMS)
    return {
        "sequential_p50_ms": statistics.median(sequential),
        "sequential_p95_ms": statistics.quantiles(sequential, n=20)[-1],
        "requests_per_second": rate,
        "stream_p50_ms": statistics.median(streams),
    }


async def compare(gateway_pid: int) -> dict[str, dict[str, float]]:
    """Medians over alternating rounds.

    Requests per second of the gateway's processor time do not depend on what else the machine does.
    """
    rounds: dict[str, list[dict[str, float]]] = {"direct": [], "gateway": []}
    for _ in range(ROUNDS):
        rounds["direct"].append(await measure(ENGINE_PORT))
        rounds["gateway"].append(await measure(GATEWAY_PORT))
        used, rate = cpu_seconds(gateway_pid), await throughput(GATEWAY_PORT)
        used = cpu_seconds(gateway_pid) - used
        rounds["gateway"][-1]["requests_per_cpu_second"] = rate * CONCURRENT_SECONDS / used
    return {
        name: {key: statistics.median(each[key] for each in results) for key in results[0]}
        for name, results in rounds.items()
    }


class EngineConnection(asyncio.Protocol):
    """The fake engine: a small JSON answer, or as many events as CHUNKS, each in a write of its own."""

    COMPLETION = json.dumps(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 16},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "total_tokens": 216, "completion_tokens": 16},
        }
    ).encode()  # fmt: skip
    EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'  # noqa: E501

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or 0)
        if len(body) < length:
            return
        self._buffer = b""
        if b'"stream": true' in body:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            asyncio.get_running_loop().call_soon(self._write_event, CHUNKS)
        else:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(self.COMPLETION)
                + self.COMPLETION
            )

    def _write_event(self, left: int) -> None:
        if left == 0:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(self.EVENT), self.EVENT))
        asyncio.get_running_loop().call_soon(self._write_event, left - 1)


async def run_engine_and_registry() -> None:
    """The other side of the gateway, until killed."""
    sys.path.insert(0, str(ROOT))
    from tests.fakes import FakeRegistry, serve_registry

    registry = FakeRegistry()
    registry.add(MODEL, "adapter", base=registry.add("qwen", "base"))
    loop = asyncio.get_running_loop()
    async with serve_registry(registry, port=REGISTRY_PORT):
        engine = await loop.create_server(EngineConnection, "127.0.0.1", ENGINE_PORT)
        await engine.serve_forever()


@contextlib.contextmanager
def processes(gateway_core: int, other_core: int) -> Iterator[subprocess.Popen[bytes]]:
    """The engine beside this process, the gateway on a core of its own."""
    environment = {
        **os.environ,
        "TUNELOOM_GATEWAY_PORT": str(GATEWAY_PORT),
        "TUNELOOM_GATEWAY_REGISTRY_ADDRESS": f"127.0.0.1:{REGISTRY_PORT}",
        "TUNELOOM_GATEWAY_ENGINE_URL": f"http://127.0.0.1:{ENGINE_PORT}",
        "TUNELOOM_GATEWAY_API_KEY_SHA256S": hashlib.sha256(KEY.encode()).hexdigest(),
    }
    started: list[subprocess.Popen[bytes]] = []
    # Affinity is inherited.
    for core, command in (
        (other_core, [sys.executable, __file__, "--engine"]),
        (gateway_core, [sys.executable, "-m", "tuneloom_gateway"]),
    ):
        os.sched_setaffinity(0, {core})
        started.append(subprocess.Popen(command, env=environment))
    os.sched_setaffinity(0, {other_core})
    try:
        yield started[-1]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=10)


def wait_until_ready() -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{GATEWAY_PORT}/readyz", timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"the gateway did not become ready: {error}") from None
            time.sleep(0.2)


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    if "--engine" in sys.argv:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_engine_and_registry())
        return
    cores = sorted(os.sched_getaffinity(0))
    with processes(cores[-1], cores[0]) as gateway:
        wait_until_ready()
        idle_mb = resident_mb(gateway.pid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            medians = runner.run(compare(gateway.pid))
    peer, ours = medians["direct"], medians["gateway"]
    print(f"\n{'medians of ' + str(ROUNDS) + ' rounds':28}{'direct':>12}{'gateway':>12}{'ratio':>9}")
    for key, value in ours.items():
        if key not in peer:
            print(f"{key:28}{'':12}{value:12.3f}")
            continue
        print(f"{key:28}{peer[key]:12.3f}{value:12.3f}{value / peer[key]:9.2f}")
    ours["overhead_p50_ms"] = ours["sequential_p50_ms"] - peer["sequential_p50_ms"]
    ours["resident_mb"] = idle_mb
    print(f"{'overhead_p50_ms':28}{'':12}{ours['overhead_p50_ms']:12.3f}")
    print(f"{'resident_mb (idle)':28}{'':12}{idle_mb:12.1f}\n")
    print(
        json.dumps(
            {
                "ours": {key: round(value, 4) for key, value in ours.items()},
                "peer": {key: round(value, 4) for key, value in peer.items()},
                "ratio": {key: round(ours[key] / value, 3) for key, value in peer.items()},
                "units": UNITS,
            }
        )
    )


if __name__ == "__main__":
    main()
