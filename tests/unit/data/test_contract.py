"""The report over a file: what it counts, what it keeps, when it passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloom_data.contract import MAX_ERRORS_KEPT, ContractReport, check_file
from tuneloom_data.reports import MAX_CAUSES_KEPT


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def check(tmp_path: Path, *rows: Any) -> ContractReport:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check_file(path)


def row(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def test_it_counts_turns_rows_and_characters(tmp_path: Path) -> None:
    report = check(
        tmp_path,
        row(message("user", "abc"), message("assistant", "defg")),
        row(
            message("system", "s"),
            message("user", "u"),
            message("assistant", "no", weight=0),
            message("user", "u"),
            message("assistant", "yes"),
            message("user", "bye"),
        ),
    )

    assert report == ContractReport(
        rows=2,
        assistant_turns=3,
        trained_turns=2,
        multi_turn_rows=1,
        unanswered_rows=1,
        characters=18,
        trained_characters=7,
    )
    assert report.passed


def test_duplicates_are_equal_messages_whatever_the_spelling(tmp_path: Path) -> None:
    one = row(message("user", "a"), message("assistant", "b"))
    same = row(message("user", "a"), {"content": "b", "role": "assistant", "weight": 1})
    other = row(message("user", "a"), message("assistant", "c"))
    with_tools = {**one, "tools": [{"name": "f"}]}

    assert check(tmp_path, one, same, one, other, with_tools).duplicate_rows == 2


def test_one_bad_row_fails_the_file_and_is_named(tmp_path: Path) -> None:
    good = row(message("user", "a"), message("assistant", "b"))

    report = check(tmp_path, good, row(message("user", "a"), message("assistant", " ")), good)

    assert not report.passed
    assert (report.rows, report.bad_rows) == (3, 1)
    expected = "1 of 3 rows cannot be trained on: row 2, messages[1].content: the assistant turn is empty"
    assert report.summary() == expected


def test_many_bad_rows_are_counted_but_not_all_kept(tmp_path: Path) -> None:
    report = check(tmp_path, *([{}] * (MAX_ERRORS_KEPT + 5)))

    assert report.bad_rows == MAX_ERRORS_KEPT + 5
    assert len(report.errors) == MAX_ERRORS_KEPT


def test_one_cause_of_many_rows_is_told_once(tmp_path: Path) -> None:
    report = check(tmp_path, *([{"instruction": "x", "output": "y"}] * 105))

    (cause,) = report.causes
    assert (cause.field, cause.count, cause.rows) == ("instruction", 105, (1, 2, 3, 4, 5))
    assert report.summary().startswith("105 of 105 rows cannot be trained on: instruction: this looks like the Alpaca")
    assert report.summary().endswith("(105 rows: 1, 2, 3, 4, 5, …)")


def test_the_same_fault_in_other_messages_and_columns_is_one_cause(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = row(message("user", "a"), message("assistant", " "))
    second = row(message("user", " "), message("assistant", "b"), message("user", "c"), message("assistant", ""))
    third = row(*[message("user", "a"), message("assistant", "b")] * 2, message("assistant", ""))
    path.write_text("\n".join([*map(json.dumps, (first, second, third)), '{"messages": ', '{"a": 1, "b": ']))

    shown = [(cause.field, cause.count, cause.rows) for cause in check_file(path).causes]

    assert shown == [
        ("messages[].content", 2, (1, 3)),
        ("messages[0].content", 1, (2,)),
        ("", 2, (4, 5)),
    ]


def test_a_report_stays_small_whatever_is_wrong(tmp_path: Path) -> None:
    rows = [row(message(f"role {number}", "x")) for number in range(1000)]

    report = check(tmp_path, *rows)

    assert (report.bad_rows, len(report.causes), report.unlisted_rows) == (1000, MAX_CAUSES_KEPT, 950)
    assert report.summary().endswith("; and 995 more")
    assert len(report.summary()) < 1000


@pytest.mark.parametrize("data", [b"", b"\n\n  \n", b"[]", b"\xef\xbb\xbf"])
def test_a_file_without_rows_does_not_pass(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)

    report = check_file(path)

    assert not report.passed
    assert report.summary() == "the file has no rows"
