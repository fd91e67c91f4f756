"""The other side of the proxies: `python -m tests.benchmarks.proxies.upstream ENGINE_PORT REGISTRY_PORT`.

An engine that answers at once, and the registry that our gateway asks where a model is. Until killed.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import uvloop

from tests.benchmarks.proxies.load import CHUNKS, MODEL
from tests.fakes import FakeRegistry, serve_registry

_STREAM = re.compile(rb'"stream": ?true')


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode()


class EngineConnection(asyncio.Protocol):
    """A small JSON answer, or as many events as CHUNKS and the end, each in a write of its own."""

    COMPLETION = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "word " * 16}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 200, "total_tokens": 216, "completion_tokens": 16},
        }
    ).encode()
    EVENTS = (*[_event({"content": " word"}, None)] * CHUNKS, _event({}, "stop"), b"data: [DONE]\n\n")

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
        if _STREAM.search(body):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            asyncio.get_running_loop().call_soon(self._write_event, 0)
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % len(self.COMPLETION) + self.COMPLETION)

    def _write_event(self, index: int) -> None:
        if self._transport.is_closing():
            return
        if index == len(self.EVENTS):
            self._transport.write(b"0\r\n\r\n")
            return
        event = self.EVENTS[index]
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        asyncio.get_running_loop().call_soon(self._write_event, index + 1)


async def main(engine_port: int, registry_port: int) -> None:
    registry = FakeRegistry()
    registry.add(MODEL, "adapter", base=registry.add("qwen", "base"))
    async with serve_registry(registry, port=registry_port):
        engine = await asyncio.get_running_loop().create_server(EngineConnection, "127.0.0.1", engine_port)
        await engine.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
