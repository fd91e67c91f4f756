"""Rows in the `messages` format: every bad one is named by row and field, none hides the others, none raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloom_data.contract import fingerprint
from tuneloom_data.conversations import Conversation, RowError
from tuneloom_data.formats import parse_row, read_conversations
from tuneloom_data.text import MAX_DEPTH

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
GOOD = {"messages": [USER, ANSWER]}


def row_with(**changes: Any) -> dict[str, Any]:
    """A good row whose answer has other fields."""
    return {"messages": [USER, {**ANSWER, **changes}]}


def parsed(value: Any) -> Conversation:
    verdict = parse_row(1, value)
    assert isinstance(verdict, Conversation), verdict
    return verdict


def read(tmp_path: Path, data: bytes | str) -> list[Conversation | RowError]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_conversations(path))


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ([1], "", "this is a list"),
        ("text", "", "this is a string"),
        (None, "", "this is a null"),
        (True, "", "this is a boolean"),
        (4.5, "", "this is a number"),
        ({}, "messages", "missing"),
        ({"instruction": "x", "output": "y"}, "instruction", "Alpaca"),
        ({"conversations": []}, "conversations", "ShareGPT"),
        ({"chosen": [], "rejected": []}, "chosen", "preference"),
        ({"prompt": "x", "completion": "y"}, "prompt", "prompt/completion"),
        ({"messages": "hi"}, "messages", "at least one"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": None}, "messages", "at least one"),
        ({"messages": [USER, "hello"]}, "messages[1]", "this is a string"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "null is not one of"),
        ({"messages": [{"role": "human", "content": "x"}]}, "messages[0].role", "'human' is not one of"),
        ({"messages": [{"role": {"a": 1}, "content": "x"}]}, "messages[0].role", "object is not one of"),
        ({"messages": [{"role": nested(900), "content": "x"}]}, "messages[0].role", "list is not one of"),
        (row_with(content=7), "messages[1].content", "string or a list of text parts"),
        (row_with(content={"text": "x"}), "messages[1].content", "string or a list of text parts"),
        (
            row_with(content=[{"type": "image_url"}]),
            "messages[1].content[0]",
            "is an image: only text",
        ),
        (row_with(content=[{"type": "text", "text": "x"}, {"type": "input_audio"}]), "messages[1].content[1]", "sound"),
        (row_with(content=[{"type": "refusal", "refusal": "no"}]), "messages[1].content[0]", "a refusal: write"),
        (row_with(content=[{"type": "hologram"}]), "messages[1].content[0]", "'hologram' is not a known type of part"),
        (row_with(content=[{"type": "text", "text": 5}]), "messages[1].content[0]", "its text as a string"),
        (row_with(content=["plain"]), "messages[1].content[0]", "must be a text part"),
        (row_with(content=""), "messages[1].content", "the assistant turn is empty"),
        (row_with(content=" \n\t"), "messages[1].content", "empty"),
        (row_with(content=None), "messages[1].content", "empty"),
        (row_with(content=[]), "messages[1].content", "empty"),
        (row_with(content=None, tool_calls=[]), "messages[1].content", "empty"),
        (row_with(content="\ud83d half"), "messages[1].content", "surrogate"),
        (row_with(name=5), "messages[1].name", "must be a string, this is a number"),
        (row_with(reasoning_content=["x"]), "messages[1].reasoning_content", "must be a string"),
        (row_with(weight=0.5), "messages[1].weight", "must be 0 or 1"),
        (row_with(weight="0"), "messages[1].weight", "must be 0 or 1"),
        (row_with(loss="false"), "messages[1].loss", "must be 0 or 1"),
        (row_with(weight=0), "messages", "every assistant turn has weight 0"),
        (row_with(loss=False), "messages", "every assistant turn has weight 0"),
        (row_with(tool_calls="f()"), "messages[1].tool_calls", "must be a list"),
        (row_with(tool_calls=[{"name": "f"}]), "messages[1].tool_calls", "function"),
        (
            row_with(tool_calls=[{"function": {"name": "f", "arguments": "{not json"}}]),
            "messages[1].tool_calls",
            "JSON",
        ),
        (row_with(tool_calls=[{"function": {"name": "f", "arguments": "[1]"}}]), "messages[1].tool_calls", "JSON"),
        ({"messages": [USER]}, "messages", "no assistant turn"),
        ({**GOOD, "images": ["a.png"]}, "images", "only text"),
        ({**GOOD, "tools": {"a": 1}}, "tools", "list of tool objects"),
        ({**GOOD, "tools": ["f"]}, "tools", "list of tool objects"),
        ({**GOOD, "tools": [{"a": nested(900)}]}, "tools", "nested too deeply"),
        ({**GOOD, "tools": [{"\udfff": 1}]}, "tools", "surrogate"),
    ],
)
def test_a_bad_row_is_named_with_its_field(row: Any, field: str, words: str) -> None:
    verdict = parse_row(7, row)

    assert isinstance(verdict, RowError)
    assert (verdict.row, verdict.field) == (7, field)
    assert words in verdict.problem
    assert len(str(verdict)) < 300


@pytest.mark.parametrize(
    ("marks", "trained"),
    [
        ({}, True),
        ({"weight": None}, True),
        ({"weight": 1}, True),
        ({"weight": 1.0}, True),
        ({"weight": 0}, False),
        ({"loss": None}, True),
        ({"loss": True}, True),
        ({"loss": False}, False),
        ({"weight": 1, "loss": False}, False),
        ({"weight": None, "loss": True}, True),
    ],
)
def test_weight_and_loss_say_which_answers_are_trained(marks: dict[str, Any], trained: bool) -> None:
    conversation = parsed({"messages": [USER, {**ANSWER, **marks}, USER, ANSWER]})

    assert [message.trained for message in conversation.messages] == [False, trained, False, True]


def test_weights_of_other_roles_change_nothing() -> None:
    conversation = parsed({"messages": [{**USER, "weight": 1}, ANSWER]})

    assert [message.trained for message in conversation.messages] == [False, True]


def test_tool_dialogues_keep_what_templates_need() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
            ANSWER,
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    }

    calling, result = (message.for_template() for message in parsed(row).messages[1:3])

    assert calling["content"] == ""
    assert calling["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}  # as vLLM hands them on
    assert result == {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
    assert parsed(row).tools == ({"type": "function", "function": {"name": "add"}},)


def test_call_arguments_may_be_an_object_or_missing() -> None:
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"name": "g"}}]
    calls.append({"function": {"name": "h", "arguments": ""}})

    seen = parsed(row_with(tool_calls=calls)).messages[1].extra["tool_calls"]

    assert [call["function"]["arguments"] for call in seen] == [{"x": 1}, {}, {}]


def test_developer_is_openais_newer_word_for_system() -> None:
    assert parsed({"messages": [{"role": "developer", "content": "x"}, USER, ANSWER]}).messages[0].role == "system"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]

    assert parsed(row_with(content=parts)).messages[1].content == "hello"


GOOD_LINE = json.dumps(GOOD)


@pytest.mark.parametrize(
    "data",
    [
        f"{GOOD_LINE}\n{GOOD_LINE}\n",
        f"{GOOD_LINE}\r\n{GOOD_LINE}",
        f"\ufeff{GOOD_LINE}\n{GOOD_LINE}\n",
        json.dumps([GOOD, GOOD]),
        json.dumps([GOOD, GOOD], indent=2),
        "\ufeff" + json.dumps([GOOD, GOOD]),
        "\ufeff \n" + json.dumps([GOOD, GOOD]),
    ],
    ids=["lines", "crlf", "bom", "array", "indented array", "bom array", "bom blank array"],
)
def test_lines_and_arrays_read_the_same(tmp_path: Path, data: str) -> None:
    assert read(tmp_path, data) == [parsed(GOOD), Conversation(2, parsed(GOOD).messages)]


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    verdicts = read(tmp_path, f"\n{GOOD_LINE}\n  \n\r\n{GOOD_LINE}\n\n")

    assert [verdict.row for verdict in verdicts] == [2, 5]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []
    assert read(tmp_path, "[]") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"messages": ', "row 2, column 13: not valid JSON"),
        (b"messages", "row 2, column 1: not valid JSON"),
        ('{"messages": "grün"}'.encode("latin-1"), "row 2, byte 16: not UTF-8"),
        (b'{"messages": ' + b"9" * 5000 + b"}", "more than 4300 digits"),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_never_hides_the_lines_after_it(tmp_path: Path, line: bytes, words: str) -> None:
    first, bad, last = read(tmp_path, b"\n".join([GOOD_LINE.encode(), line, GOOD_LINE.encode()]))

    assert isinstance(first, Conversation)
    assert isinstance(last, Conversation)
    assert isinstance(bad, RowError)
    assert bad.row == 2
    assert words in str(bad)


def test_a_torn_array_names_the_row_and_the_line(tmp_path: Path) -> None:
    good, torn = read(tmp_path, f"[\n{GOOD_LINE},\n")

    assert isinstance(good, Conversation)
    assert str(torn) == (
        "row 2, line 3: the file ends before the array does; it was cut off; nothing behind it was read"
    )


@pytest.mark.parametrize("depth", range(MAX_DEPTH - 2, MAX_DEPTH + 2))
def test_whatever_passes_can_be_written_out_again(depth: int) -> None:
    verdict = parse_row(1, {**GOOD, "tools": [{"deep": nested(depth)}]})

    if isinstance(verdict, Conversation):
        fingerprint(verdict)
    else:
        assert verdict.field == "tools"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        key: values | json_values
        for key, values in {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "function"]),
            "content": st.text(max_size=10),
            "weight": st.sampled_from([0, 1, None]),
            "loss": st.booleans(),
            "tool_calls": st.lists(st.fixed_dictionaries({"function": json_values}), max_size=2),
            "name": st.text(max_size=3),
        }.items()
    },
)
rows = json_values | st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=4) | json_values}, optional={"tools": json_values, "images": json_values}
)


# No deadline per example: other work on the machine would fail the test.
@settings(deadline=None)
@given(rows)
def test_any_value_gets_a_verdict_and_what_passes_is_sound(value: Any) -> None:
    verdict = parse_row(3, value)

    assert verdict.row == 3
    if isinstance(verdict, Conversation):
        assert any(message.trained for message in verdict.messages)
        assert all(message.content.strip() or message.extra.get("tool_calls") for message in verdict.messages)
        assert all(message.role == "assistant" for message in verdict.messages if message.trained)
        fingerprint(verdict)
        json.dumps([message.for_template() for message in verdict.messages], ensure_ascii=False).encode()
    else:
        str(verdict).encode()


@settings(deadline=None)
@given(st.binary(max_size=200) | rows.map(lambda row: json.dumps(row).encode()))
def test_any_file_gets_verdicts(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)

    assert all(isinstance(verdict, (Conversation, RowError)) for verdict in read_conversations(path))
