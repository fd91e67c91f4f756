"""Answers call the model what the client called it, and change nothing else."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeEngine, FakeRegistry
from tests.unit.gateway.conftest import chat, error_of
from tests.unit.gateway.test_streaming import begin
from tuneloom_gateway.inference.naming import PublicName

ENGINE, PUBLIC = "nova--db61be6f24b7", "nova@live"
CHAT = "/v1/chat/completions"
SAYINGS = st.sampled_from(
    [
        ENGINE, f'"model":"{ENGINE}"', f'\\"model":"{ENGINE}"', f'{{"model": "{ENGINE}"}}', f'x","model":"{ENGINE}',
        "\\", '"', '\\"', "model", f'"model\\":"{ENGINE}"', "\n\n", '"mod', ",",
    ]
)  # fmt: skip
TEXTS = st.lists(SAYINGS | st.text(max_size=4), max_size=5).map("".join)


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "1", "object": "chat.completion.chunk", "model": ENGINE, "choices": [{"text": text}], **more}


def spelled(value: Any, compact: bool) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None).encode()


@given(TEXTS, st.booleans())
def test_a_whole_answer(text: str, compact: bool) -> None:
    said = {**chunk(text), "key": {text: 1}, "list": [text, "model", ENGINE]}
    changed = PublicName(ENGINE, PUBLIC).whole(spelled(said, compact))
    assert json.loads(changed) == {**said, "model": PUBLIC}


@given(st.lists(TEXTS, max_size=4), st.booleans(), st.data())
def test_a_stream_in_pieces_of_any_size(texts: list[str], compact: bool, data: st.DataObject) -> None:
    raw = b"".join(b"data: " + spelled(chunk(text), compact) + b"\n\n" for text in texts) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)))
    name = PublicName(ENGINE, PUBLIC)
    out = b"".join(name.piece(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)) + name.rest()
    events = [json.loads(event[6:]) for event in out.decode().split("\n\n")[:-2]]
    assert events == [{**chunk(text), "model": PUBLIC} for text in texts]


@given(st.lists(st.binary(max_size=30) | SAYINGS.map(str.encode), max_size=6))
def test_other_bytes_are_left_alone(pieces: list[bytes]) -> None:
    name = PublicName("absent--000000000000", PUBLIC)
    assert b"".join(map(name.piece, pieces)) + name.rest() == b"".join(pieces)


@pytest.mark.parametrize("compact", [True, False])
def test_a_stream_cut_anywhere(compact: bool) -> None:
    raw = b"data: " + spelled(chunk(f'"model":"{ENGINE}"'), compact) + b"\n\n"
    for cut in range(len(raw)):
        name = PublicName(ENGINE, PUBLIC)
        out = name.piece(raw[:cut]) + name.piece(raw[cut:]) + name.rest()
        assert json.loads(out[6:]) == {**chunk(f'"model":"{ENGINE}"'), "model": PUBLIC}


def test_little_is_held_back() -> None:
    name = PublicName(ENGINE, PUBLIC)
    assert name.piece(b'data: {"half') == b'data: {"half'
    assert name.piece(b',"mod') == b""
    assert name.piece(b'el":"other"') == b',"model":"othe'  # a quote may begin the next name
    assert name.piece(b"}") == b'r"}'


@pytest.mark.parametrize("asked_for", ["assistant", "assistant@canary", "assistant:2"])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_name_in_answers(asked_for: str, stream: bool, gateway: aiohttp.ClientSession) -> None:
    response = await gateway.post(CHAT, json=chat(asked_for, stream=stream))
    assert response.headers["x-served-model-digest"]
    text = await response.text()
    if stream:
        names = {json.loads(event[6:])["model"] for event in text.split("\n\n")[:-2]}
    else:
        names = {json.loads(text)["model"]}
    assert names == {asked_for}


async def test_an_error_in_mid_stream_has_openais_shape(
    gateway: aiohttp.ClientSession, engine: FakeEngine, registry: FakeRegistry
) -> None:
    name = registry.versions["assistant"][0].engine_name

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin(request)
        error = {"message": f"{name} is out of cache", "type": "BadRequestError", "param": None, "code": 400}
        await response.write(b"data: 1\n\ndata: " + json.dumps({"error": error}).encode() + b"\n\ndata: [DONE]\n\n")
        return response

    engine.answer = answer
    response = await gateway.post(CHAT, json=chat(stream=True))
    first, second, last, _ = (await response.text()).split("\n\n")
    assert (first, last) == ("data: 1", "data: [DONE]")
    assert json.loads(second[6:])["error"] == {
        "message": "assistant is out of cache", "type": "invalid_request_error", "param": None, "code": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "BadRequestError", "invalid_request_error"),
        (404, "NotFoundError", "invalid_request_error"),
        (422, "Unprocessable Entity", "invalid_request_error"),
        (429, "Too Many Requests", "rate_limit_error"),
        (500, "InternalServerError", "server_error"),
        (429, "insufficient_quota", "insufficient_quota"),
    ],
)
async def test_types_are_openais(
    status: int, kind: str, expected: str, gateway: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    async def answer(_: web.Request, __: Any) -> web.Response:
        return web.json_response({"error": {"message": "no", "type": kind, "code": status}}, status=status)

    engine.answer = answer
    assert (await error_of(await gateway.post(CHAT, json=chat())))["type"] == expected
