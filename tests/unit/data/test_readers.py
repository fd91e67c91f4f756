"""Formats are known by sight: one is read, the others are refused by name with the next step."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloom_data.conversations import Conversation, RowError
from tuneloom_data.formats import parse_row
from tuneloom_data.objectives import Objective, read_objective
from tuneloom_data.readers.reader import Reader
from tuneloom_data.readers.table import READERS, reader_for

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
GOOD = {"messages": [USER, ANSWER]}
CALL = {"name": "add", "arguments": '{"a": 1}'}

FOREIGN: list[tuple[dict[str, Any], str, str]] = [
    ({"instruction": "x", "input": "", "output": "y"}, "Alpaca", "instruction"),
    ({"instruction": "x", "context": "", "response": "y"}, "Alpaca", "instruction"),
    ({"conversations": [{"from": "human", "value": "x"}]}, "ShareGPT", "conversations"),
    ({"id": "1", "image": "a.jpg", "conversations": []}, "ShareGPT", "conversations"),
    ({"conversation": [{"system": "s", "input": "x", "output": "y"}]}, "XTuner", "conversation"),
    ({"message_id": "1", "parent_id": None, "text": "x", "role": "prompter"}, "OASST1", "message_id"),
    ({"prompt": "x", "completion": "y"}, "prompt/completion", "prompt"),
    ({"query": "x", "response": "y"}, "prompt/completion", "query"),
    ({"question": "x", "answer": "y"}, "prompt/completion", "question"),
    ({"role": "user", "content": "x"}, "single message", "role"),
    ({"text": "x"}, "plain text", "text"),
]
JUDGED: list[tuple[dict[str, Any], str]] = [
    ({**GOOD, "label": False}, "label"),
    ({**GOOD, "label": True}, "label"),
    ({**GOOD, "label": 0}, "label"),
    ({**GOOD, "label": "bad"}, "label"),
    ({**GOOD, "kto_tag": False}, "kto_tag"),
    ({**GOOD, "rejected": [ANSWER]}, "rejected"),
    ({**GOOD, "chosen": ANSWER, "rejected": ANSWER}, "chosen"),
    ({**GOOD, "rejected_response": "no"}, "rejected_response"),
    ({**GOOD, "rejected_messages": [USER, ANSWER]}, "rejected_messages"),
    ({"conversations": [], "chosen": {"from": "gpt"}, "rejected": {"from": "gpt"}}, "chosen"),
    ({"prompt": "x", "chosen": "y", "rejected": "z"}, "chosen"),
    ({"prompt": "x", "completion": "y", "label": True}, "label"),
    ({"input": {}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}, "preferred_output"),
    ({"chosen": [], "rejected": []}, "chosen"),
]


def refused(row: dict[str, Any]) -> RowError:
    verdict = parse_row(1, row)
    assert isinstance(verdict, RowError), verdict
    return verdict


def read(row: dict[str, Any]) -> Conversation:
    verdict = parse_row(1, row)
    assert isinstance(verdict, Conversation), verdict
    return verdict


@pytest.mark.parametrize(("row", "name", "field"), FOREIGN)
def test_a_foreign_row_is_refused_by_name_with_the_way_out(row: dict[str, Any], name: str, field: str) -> None:
    error = refused(row)

    assert error.field == field
    assert f"looks like the {name} format; " in error.problem
    assert "{'messages': [" in error.problem


@pytest.mark.parametrize(("row", "field"), JUDGED)
def test_sft_refuses_rows_with_a_judgement(row: dict[str, Any], field: str) -> None:
    error = refused(row)

    assert error.field == field
    assert "preference data" in error.problem
    assert "objective sft" in error.problem


@pytest.mark.parametrize(
    "note",
    [
        {"label": "geography"},
        {"label": None},
        {"label": ""},
        {"label": float("nan")},
        {"rejected": None, "chosen": None},
        {"rejected": []},
        {"rejected_response": ""},
        {"id": 7, "source": "somewhere"},
        {"images": [], "system": ""},
        {"functions": []},
    ],
)
def test_notes_and_empty_columns_are_no_judgement(note: dict[str, Any]) -> None:
    assert read({**GOOD, **note}) == read(GOOD)


def test_there_is_one_objective_so_far() -> None:
    assert read_objective("sft") is Objective.SFT
    with pytest.raises(ValueError, match="objective 'dpo' is not one of sft"):
        read_objective("dpo")


@pytest.mark.parametrize("reader", READERS[Objective.SFT], ids=lambda reader: reader.name)
@pytest.mark.parametrize("row", [GOOD, {}, *(row for row, *_ in FOREIGN), *(row for row, _ in JUDGED)])
def test_every_reader_gives_a_verdict_on_every_row(reader: Reader, row: dict[str, Any]) -> None:
    assert 0 <= reader.sniff(row).confidence <= 1
    assert reader.read(1, row).row == 1


def test_a_row_nobody_knows_is_told_what_rows_look_like() -> None:
    assert reader_for({"x": 1}, Objective.SFT).name == "messages"
    assert refused({"x": 1}).problem == "missing; a row looks like {'messages': [{'role', 'content'}, …]}"


def test_a_legacy_function_call_is_read_as_a_tool_call_and_its_result() -> None:
    conversation = read(
        {
            "messages": [
                USER,
                {**ANSWER, "function_call": CALL},
                {"role": "function", "name": "add", "content": "2"},
                {"role": "assistant", "content": None, "function_call": {"name": "sub", "arguments": ""}},
                {"role": "function", "name": "sub", "content": "0"},
                ANSWER,
            ],
            "functions": [{"name": "add", "parameters": {}}],
        }
    )

    _, first, result, second, other, _ = (message.for_template() for message in conversation.messages)
    assert first["content"] == "hello"
    assert first["tool_calls"] == [
        {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    ]
    assert result == {"role": "tool", "content": "2", "name": "add", "tool_call_id": "call00001"}
    assert second["tool_calls"][0]["function"] == {"name": "sub", "arguments": {}}
    assert other["tool_call_id"] == second["tool_calls"][0]["id"]
    assert conversation.tools == ({"type": "function", "function": {"name": "add", "parameters": {}}},)


@pytest.mark.parametrize(
    ("messages", "field", "words"),
    [
        ([USER, {**ANSWER, "function_call": "auto"}], "messages[1].function_call", "must be {'name', 'arguments'}"),
        ([USER, {**ANSWER, "function_call": {"name": "f", "arguments": "{"}}], "messages[1].function_call", "JSON"),
        ([{**USER, "function_call": CALL}, ANSWER], "messages[0].function_call", "only an assistant turn"),
        (
            [USER, {**ANSWER, "function_call": CALL, "tool_calls": [{"function": CALL}]}],
            "messages[1].function_call",
            "keep tool_calls",
        ),
        ([USER, {"role": "function", "content": "2"}, ANSWER], "messages[1].name", "missing"),
        ([USER, {"role": "function", "name": "f", "content": "2"}, ANSWER], "messages[1].name", "no function_call"),
    ],
)
def test_a_broken_legacy_call_is_refused(messages: list[dict[str, Any]], field: str, words: str) -> None:
    error = refused({"messages": messages})

    assert error.field == field
    assert words in error.problem


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({**GOOD, "system": "Be kind."}, "system", "role system"),
        ({**GOOD, "tools": [{}], "functions": [{}]}, "functions", "keep tools"),
        ({**GOOD, "functions": {"name": "f"}}, "functions", "list of function objects"),
        ({"messages": [USER, {**ANSWER, "refusal": "no"}]}, "messages[1].refusal", "into content"),
        ({"messages": [USER, {**ANSWER, "reasoning": "hm"}]}, "messages[1].reasoning", "reasoning_content"),
        ({"messages": [USER, {**ANSWER, "audio": {"id": "1"}}]}, "messages[1].audio", "only text"),
        ({"messages": [{**USER, "images": ["a.png"]}, ANSWER]}, "messages[0].images", "only text"),
        ({"messages": [{"from": "human", "value": "x"}]}, "messages[0]", "ShareGPT turn"),
    ],
)
def test_nothing_that_would_be_taught_is_dropped_without_a_word(row: dict[str, Any], field: str, words: str) -> None:
    error = refused(row)

    assert error.field == field
    assert words in error.problem
