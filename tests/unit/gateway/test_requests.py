"""Replacing the model's name changes nothing else, wherever else the word stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloom_gateway.inference.request import InferenceRequest

ENGINE_NAME = "assistant--0123456789ab"
KEYS = st.sampled_from(["model", "messages", 'a"model"', "m\u006fdel", "x", "\\u006dodel"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["model"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=4), st.text(), st.booleans(), st.booleans())
def test_any_object(other: dict[str, Any], model: str, spaced: bool, ascii_only: bool) -> None:
    body = {**other, "model": model}
    raw = json.dumps(body, indent=1 if spaced else None, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    replaced = InferenceRequest.parse(raw, required=()).for_engine(ENGINE_NAME)
    assert json.loads(replaced) == {**body, "model": ENGINE_NAME}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b"}',
        b'{"\\u006dodel":"a","model":"b"}',
        b'{"model":"a","mode\\u006c":"b"}',
        b'{"x":{"model":"a"},"mod\\u0065l":"b"}',
    ],
)
def test_no_second_spelling_gets_through(raw: bytes) -> None:
    request = InferenceRequest.parse(raw, required=())
    assert request.model == "b"
    pairs = json.loads(request.for_engine(ENGINE_NAME), object_pairs_hook=list)
    assert [value for key, value in pairs if key == "model"] == [ENGINE_NAME]


def test_all_other_bytes_stay() -> None:
    raw = b' {"seed":  12345678901234567890,"t":1.10,\n"model" : "a\\"b", "s":"\xc3\xbc\\u00fc"} '
    replaced = InferenceRequest.parse(raw, required=()).for_engine(ENGINE_NAME)
    assert replaced == raw.replace(b'"model" : "a\\"b"', b'"model":"assistant--0123456789ab"')


def test_utf_16_is_understood() -> None:
    raw = json.dumps({"model": "a", "x": "ü"}, ensure_ascii=False).encode("utf-16")
    assert json.loads(InferenceRequest.parse(raw, required=()).for_engine(ENGINE_NAME)) == {
        "model": ENGINE_NAME,
        "x": "ü",
    }
