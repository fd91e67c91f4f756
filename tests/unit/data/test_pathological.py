"""Rows and files that nobody should write have verdicts too, soon, and no exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloom_data.contract import check_file
from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import parse_row
from tuneloom_data.limits import Limits
from tuneloom_data.reports import as_json, from_json

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "%s"}]}'
MANY = 200_000

PASSING = {
    "long text": "x" * 10_000_000,
    "text of escapes": '\\"\\\\' * MANY,
    "text of brackets": "[{" * MANY,
    "text like JSON": '\\"}]}, {\\"messages\\": [',
    "line separators": "a\u2028b\u2029c\u0085d",
    "escaped NUL": "a\\u0000b",
    "surrogate pair": "\\ud83d\\ude00",
    "carriage return": "a\\r\\nb",
    "zero width": "\u200b\ufeff.",
}
REFUSED = {
    "raw NUL": ("a\x00b", "Invalid control character"),
    "raw tab": ("a\tb", "Invalid control character"),
    "half a surrogate pair": ("\\ud83d", "half of a surrogate pair"),
    "spaces of all kinds": ("\u2003\u00a0\\n", "the assistant turn is empty"),
    "unknown escape": ("\\x41", "Invalid \\escape"),
}


@pytest.mark.parametrize("shape", ["%s", "[%s]"], ids=["lines", "array"])
@pytest.mark.parametrize("text", PASSING.values(), ids=PASSING.keys())
def test_strange_text_is_text(tmp_path: Path, text: str, shape: str) -> None:
    report = written(tmp_path, shape % (GOOD % text))

    assert (report.rows, report.summary()) == (1, "all 1 rows are good")


@pytest.mark.parametrize("shape", ["%s\n%s\n%s\n", "[%s,%s,%s]"], ids=["lines", "array"])
@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_broken_text_is_refused_and_the_next_row_read(tmp_path: Path, text: str, words: str, shape: str) -> None:
    report = written(tmp_path, shape % (GOOD % "first", GOOD % text, GOOD % "last"))

    assert (report.rows, report.bad_rows) == (3, 1)
    assert words in report.summary()


@pytest.mark.parametrize("shape", ["%s\n", "[%s]"], ids=["lines", "array"])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("[" * MANY + "]" * MANY, "nested too deeply"),
        ('{"messages": ' * MANY + "1" + "}" * MANY, "nested too deeply"),
        ('{"messages": ' + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ('{"messages": 1e999999}', "a list with at least one message"),
        ('{"messages": NaN}', "a list with at least one message"),
        (f'{{"messages": [], {(GOOD % "x")[1:]}', "the field 'messages' stands twice in one object"),
        ((GOOD % "x").replace('"role": "user"', '"role": "user", "role": "system"'), "the field 'role' stands twice"),
        ('{"messages": [' + "{}," * MANY + "{}]}", "null is not one of"),
        ('{"messages": [{"role": "user", "content": ' + "[]" + "}]}", "the user turn is empty"),
        ('{"' + "k" * MANY + '": 1}', "missing"),
        ("{" + ",".join(f'"{number}": 1' for number in range(100_000)) + "}", "missing"),
    ],
    ids=[
        "deep arrays",
        "deep objects",
        "huge integer",
        "huge float",
        "not a number",
        "doubled messages",
        "doubled role",
        "very many messages",
        "empty parts",
        "long key",
        "many keys",
    ],
)
def test_strange_rows_are_refused_in_few_words(tmp_path: Path, row: str, words: str, shape: str) -> None:
    report = written(tmp_path, shape % row)

    assert (report.rows, report.bad_rows) == (1, 1)
    assert words in report.summary()
    assert len(report.summary()) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + (GOOD % "x").encode() + b"\r\n" + b"\xef\xbb\xbf" + (GOOD % "y").encode(),
        (GOOD % "x").encode() + b"\r\n\r\n" + (GOOD % "y").encode() + b"\r\n",
        b" \r\n[" + (GOOD % "x").encode() + b"\r\n,\r\n" + (GOOD % "y").encode() + b"]\r\n",
    ],
    ids=["two files put together", "carriage returns", "array with carriage returns"],
)
def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows"
    path.write_bytes(data)

    assert check_file(path).summary() == "all 2 rows are good"


FIELDS = [
    "messages",
    "role",
    "content",
    "tools",
    "functions",
    "function_call",
    "tool_calls",
    "tool_call_id",
    "name",
    "arguments",
    "function",
    "type",
    "text",
    "id",
    "label",
    "chosen",
    "rejected",
    "images",
    "weight",
    "loss",
    "refusal",
    "reasoning",
    "system",
    "instruction",
    "output",
    "conversations",
    "from",
    "value",
]
names = st.sampled_from(FIELDS)
words = st.sampled_from(["user", "assistant", "system", "function", "tool", "text", "image_url", "true", "{}", "", "f"])
wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | words
    | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)
calls = st.fixed_dictionaries({"name": words, "arguments": words | wild})
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "assistant", "function", "tool"]), "content": words},
    optional={
        "function_call": calls,
        "tool_calls": st.lists(st.fixed_dictionaries({"function": calls}), max_size=2),
        "name": words,
        "weight": st.sampled_from([0, 1]),
        "reasoning_content": words,
    },
)
nearly = st.fixed_dictionaries(
    {"messages": st.lists(turns, min_size=1, max_size=4)}, optional={"tools": st.lists(wild, max_size=2), "label": wild}
)
files = st.lists(wild | nearly, max_size=4).flatmap(
    lambda rows: st.sampled_from([json.dumps(rows), json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows))])
)


@settings(deadline=None, max_examples=300)
@given(wild | nearly)
def test_any_row_has_a_verdict_and_what_passes_can_be_read_again(row: Any) -> None:
    verdict = parse_row(1, row)

    if isinstance(verdict, Conversation):
        assert parse_row(1, verdict.as_row()) == verdict
    else:
        assert verdict.problem
        str(verdict).encode()


@settings(deadline=None, max_examples=150)
@given(files.flatmap(lambda text: st.sampled_from([text, text[: len(text) // 2], text + "]", text.replace('"', "")])))
def test_any_file_has_a_report_that_can_be_sent(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "wild"
    path.write_text(text, "utf-8")

    report = check_file(path, limits=Limits(row_bytes=200, rows=3, file_bytes=2000))

    assert report.bad_rows <= report.rows <= 3
    assert report.passed == (report.rows > 0 and not report.causes)
    assert from_json(json.loads(json.dumps(as_json(report)))) == report


def written(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "rows.json"
    path.write_text(text, "utf-8")
    return check_file(path)
