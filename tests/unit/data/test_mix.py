"""A mix is read like training data: what cannot be mixed is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import parse_row
from tuneloom_data.synth import read_mix, self_cognition

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
ROWS: list[dict[str, Any]] = [
    {"messages": [USER, ANSWER]},
    {"messages": [{"role": "system", "content": "Be kind."}, USER, {**ANSWER, "weight": 0}, USER, ANSWER]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
            ANSWER,
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    },
]


@pytest.mark.parametrize(
    "text",
    [json.dumps(ROWS), json.dumps(ROWS, indent=1), "\n\n".join(map(json.dumps, ROWS))],
    ids=["array", "indented", "lines"],
)
def test_lines_and_arrays_are_mixes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mix.json"
    path.write_text(text)

    mix = read_mix(path)

    assert mix == ROWS
    assert len(self_cognition(name="Ada", author="Acme", rows=50, mix=mix, mix_share=0.5, seed=1)) == 50


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_the_same_after_it_was_read(row: dict[str, Any]) -> None:
    conversation = parse_row(1, row)

    assert isinstance(conversation, Conversation)
    assert conversation.as_row() == row


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (json.dumps([{"instruction": "x", "output": "y"}]).encode(), "mix.json: 1 of 1 rows .* the Alpaca format"),
        (b'{"messages": ', "mix.json: 1 of 1 rows cannot be trained on: row 1, column 13: not valid JSON"),
        (b"", "mix.json: the file has no rows"),
        (b"PK\x03\x04 xl/workbook.xml", "mix.json: this is a spreadsheet"),
        (b'"text"', "mix.json: this is no JSON"),
    ],
)
def test_what_cannot_be_mixed_is_told_in_a_sentence(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "mix.json"
    path.write_bytes(data)

    with pytest.raises(ValueError, match=words):
        read_mix(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent.jsonl: cannot be read \(No such file"):
        read_mix(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory"):
        read_mix(tmp_path)
