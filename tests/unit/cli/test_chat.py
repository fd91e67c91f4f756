"""`tuneloom chat` against a scripted gateway and engine host."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from tests.fakes import FakeRegistry, serve_registry
from tuneloom_cli.commands.chat import talk
from tuneloom_cli.conversation import Conversation
from tuneloom_cli.engine import Engines, EngineState
from tuneloom_cli.gateway import Gateway
from tuneloom_cli.prompting import PlainLines
from tuneloom_client.registry import RegistryClient
from tuneloom_common.errors import NotFound, TuneloomError, Unauthenticated, Unavailable

Answer = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def piece(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


class FakeGateway:
    """Answers with `answer`, or with `refusal`; `asked` holds the bodies, `tokens` the keys."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.refusal: tuple[int, Any] | None = None
        self.answer: Answer = self._hello
        self.states: list[dict[str, Any] | None] = []
        self.engines_asked: list[str] = []

    async def _hello(self, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(piece("") + piece("hello") + piece(" [there] :100:\t|") + b"data: [DONE]\n\n")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers["authorization"])
        self.asked.append(await request.json())
        if self.refusal:
            return web.json_response({"error": {"message": self.refusal[1]}}, status=self.refusal[0])
        response = web.StreamResponse()
        await response.prepare(request)
        await self.answer(request, response)
        return response

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "ghost@1":
            error = {"message": "the model 'ghost@1' does not exist; did you mean 'host'?"}
            return web.json_response({"error": error}, status=404)
        if name == "locked":
            return web.json_response({"error": {"message": "bad key"}}, status=401)
        return web.json_response({"id": name, "version": "models/helper/versions/1", "kind": "adapter"})

    async def replica(self, request: web.Request) -> web.Response:
        self.engines_asked.append(request.match_info["name"])
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0] if self.states else None
        return web.json_response(state or {}, status=200 if state else 404)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


class Pause:
    """Sleeps that end when a test says so; `looks` counts them."""

    def __init__(self) -> None:
        self.looks = 0
        self.enough = asyncio.Event()
        self.limit = 3

    async def __call__(self, seconds: float) -> None:
        self.looks += 1
        if self.looks > self.limit:
            self.enough.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)


Open = Callable[..., Any]


@pytest.fixture
async def url(gateway: FakeGateway) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", gateway.chat)
    app.router.add_get("/v1/models/{name}", gateway.model)
    app.router.add_get("/replicas/{name}", gateway.replica)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def registry() -> FakeRegistry:
    registry = FakeRegistry()
    registry.add("helper", "adapter", base=registry.add("seed", "base"))
    return registry


@pytest.fixture
async def open_(url: str, registry: FakeRegistry) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_registry(registry))

        async def conversation(model: str = "helper", *, first_word_seconds: float = 30, **more: Any) -> Conversation:
            session = await stack.enter_async_context(ClientSession(url, headers={"authorization": "Bearer k"}))
            client = await stack.enter_async_context(RegistryClient.at(address, token=None))
            one = Gateway(session, first_word_seconds=first_word_seconds)
            return Conversation(one, Engines(session, client), await one.model(model), **more)

        yield conversation


async def test_an_answer_streams_and_is_remembered(open_: Open, gateway: FakeGateway, capsys: Any) -> None:
    conversation = await open_(system="be brief", temperature=0.5, max_tokens=9)
    assert await conversation.turn("hi")
    assert capsys.readouterr().out == "hello [there] :100:\t|\n"
    assert await conversation.turn("again")
    first, second = gateway.asked
    assert (first["model"], first["temperature"], first["max_tokens"], first["stream"]) == ("helper", 0.5, 9, True)
    assert first["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert second["messages"][2:] == [
        {"role": "assistant", "content": "hello [there] :100:\t|"},
        {"role": "user", "content": "again"},
    ]
    conversation.reset()
    assert conversation.history == [{"role": "system", "content": "be brief"}]


async def test_an_unknown_model_is_noticed_before_anything_is_asked(open_: Open, gateway: FakeGateway) -> None:
    with pytest.raises(NotFound, match="did you mean 'host'"):
        await open_("ghost@1")
    with pytest.raises(Unauthenticated, match="tuneloom key"):
        await open_("locked")
    assert gateway.asked == []


async def test_a_gateway_that_is_not_there_is_said(registry: FakeRegistry) -> None:
    async with ClientSession("http://127.0.0.1:1") as session:
        with pytest.raises(Unavailable, match="is 'tuneloom up' running"):
            await Gateway(session).model("helper")


async def test_ctrl_c_stops_the_answer_and_not_the_session(open_: Open, gateway: FakeGateway, capsys: Any) -> None:
    async def endless(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(piece("one two"))
        await heard.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    heard = asyncio.Event()
    gateway.answer = endless
    conversation = await open_()
    turn = asyncio.create_task(conversation.turn("count"))
    while "one two" not in capsys.readouterr().out:  # noqa: ASYNC110 - the terminal has no event
        await asyncio.sleep(0.005)
    heard.set()
    assert await turn is False
    assert "(stopped)" in capsys.readouterr().out
    assert conversation.history[-1] == {"role": "assistant", "content": "one two"}
    gateway.answer = gateway._hello
    assert await conversation.turn("go on")
    assert [message["content"] for message in gateway.asked[-1]["messages"]] == ["count", "one two", "go on"]


async def test_a_failed_turn_ends_nothing_and_is_forgotten(open_: Open, gateway: FakeGateway, capsys: Any) -> None:
    gateway.refusal = (503, "the engine for seed failed: no [memory]")
    conversation = await open_()
    await talk(conversation, PlainLines(io.StringIO("hi\n\n/reset\n/exit\nnever\n")))
    assert "no [memory]" in capsys.readouterr().err
    assert len(gateway.asked) == 1
    assert conversation.history == []


async def test_an_error_inside_a_stream_is_the_answers_end(open_: Open, gateway: FakeGateway) -> None:
    async def broken(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(piece("he") + b'data: {"error": {"message": "the engine broke off"}}\n\n')

    gateway.answer = broken
    with pytest.raises(TuneloomError, match="broke off"):
        await (await open_()).turn("hi")


async def test_a_cold_start_is_told_as_it_is(
    open_: Open, gateway: FakeGateway, registry: FakeRegistry, capsys: Any
) -> None:
    pause = Pause()

    async def slow(request: web.Request, response: web.StreamResponse) -> None:
        await pause.enough.wait()
        await response.write(piece("hello"))

    gateway.answer = slow
    gateway.states = [
        {"state": "starting", "seconds": 12.4, "expected_seconds": 43.0},
        {"state": "starting", "seconds": 13.4, "expected_seconds": 43.0},
        {"state": "ready"},
    ]
    conversation = await open_(sleep=pause)
    assert await conversation.turn("hi")
    base = registry.versions["seed"][0]
    assert set(gateway.engines_asked) == {base.engine_name}
    said = capsys.readouterr().out.splitlines()
    assert said == ["starting the engine: 0:12 of about 0:43", "the engine is ready and reads the prompt", "hello"]


async def test_without_an_engine_host_waiting_is_still_told(open_: Open, gateway: FakeGateway, capsys: Any) -> None:
    pause = Pause()

    async def slow(request: web.Request, response: web.StreamResponse) -> None:
        await pause.enough.wait()
        await response.write(piece("hello"))

    gateway.answer = slow
    await (await open_(sleep=pause)).turn("hi")
    assert capsys.readouterr().out.splitlines() == ["waiting for the first word", "hello"]


async def test_at_the_timeout_the_truth_is_told(open_: Open, gateway: FakeGateway) -> None:
    async def silent(request: web.Request, response: web.StreamResponse) -> None:
        await asyncio.Event().wait()

    gateway.answer = silent
    gateway.states = [{"state": "failed", "error": "not enough memory", "log": "RuntimeError: out of memory"}]
    with pytest.raises(Unavailable, match="not enough memory\nRuntimeError: out of memory") as caught:
        await (await open_(first_word_seconds=0.1)).turn("hi")
    assert "does not answer" not in caught.value.message


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"state": "fetching", "seconds": 1}, "fetching the model's files for the engine: 0:01"),
        ({"state": "waiting"}, "waiting for a free place for the engine"),
        ({"state": "dreaming"}, "the engine is dreaming"),
        ({"state": "failed", "error": "x"}, "the engine failed: x"),
    ],
)
def test_states_are_sentences(body: dict[str, Any], sentence: str) -> None:
    assert EngineState.of(body).sentence == sentence


async def test_a_piped_chat_asks_line_by_line() -> None:
    prompts = PlainLines(io.StringIO("one\n two \n"))
    assert [await prompts.ask() for _ in range(3)] == ["one", "two", None]


@asynccontextmanager
async def edited(tmp_path: Any) -> AsyncIterator[Any]:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from tuneloom_cli.prompting import EditableLine

    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys, EditableLine(tmp_path / "chat_history")


async def test_lines_can_be_edited_cleared_and_recalled(tmp_path: Any) -> None:
    async with edited(tmp_path) as (keys, line):
        keys.send_text("helo\x1b[Dl\r")
        assert await line.ask() == "hello"
        keys.send_text("not this\x03")
        keys.send_text("but this\r")
        assert await line.ask() == "but this"
        keys.send_text("\x1b[A\x1b[A\r")
        assert await line.ask() == "hello"
        keys.send_text("\x04")
        assert await line.ask() is None
    assert (tmp_path / "chat_history").stat().st_mode & 0o777 == 0o600
