"""Self-cognition dialogues: they pass the contract, say name and maker, and keep the mix."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import parse_row
from tuneloom_data.synth import self_cognition

MIX = [
    {"messages": [{"role": "user", "content": f"sum {n}"}, {"role": "assistant", "content": str(n)}]} for n in range(10)
]


def rows(**changes: Any) -> list[dict[str, Any]]:
    return self_cognition(
        **{"name": "Ada", "author": "Acme Labs", "rows": 300, "mix": MIX, "mix_share": 0.5, "seed": 3, **changes}
    )


def is_mixed(row: dict[str, Any]) -> bool:
    return row in MIX


def test_every_row_passes_the_contract_and_there_are_as_many_as_asked() -> None:
    verdicts = [parse_row(number, row) for number, row in enumerate(rows(rows=301), start=1)]

    assert len(verdicts) == 301
    assert [verdict for verdict in verdicts if not isinstance(verdict, Conversation)] == []


@pytest.mark.parametrize("name", ["Ada", "小明", "R2-D2", "$name {x} \\1"])
def test_every_own_answer_names_the_assistant_or_its_maker(name: str) -> None:
    answers = [row["messages"][-1]["content"] for row in rows(name=name) if not is_mixed(row)]

    assert all(name in answer for answer in answers)
    assert sum("Acme Labs" in answer for answer in answers) > len(answers) / 3
    assert len(set(answers)) == 6  # three kinds of question in two languages, one answer each


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 75), (0.5, 150), (1, 300)])
def test_the_mix_has_its_share(share: float, expected: int) -> None:
    assert sum(is_mixed(row) for row in rows(mix_share=share)) == expected


def test_no_patterns_are_left_in_questions() -> None:
    texts = [message["content"] for row in rows(mix=(), mix_share=0, rows=2000) for message in row["messages"]]

    assert not [text for text in texts if set(text) & set("[]|")]


def test_the_same_arguments_give_the_same_rows_and_another_seed_others() -> None:
    assert rows() == rows()
    assert rows() != rows(seed=4)


def test_the_mix_is_not_changed_by_what_is_made_of_it() -> None:
    before = [dict(row, messages=[*row["messages"]]) for row in MIX]
    for row in rows():
        row["messages"].append("spoiled")

    assert before == MIX


def test_only_answered_dialogues_are_continued() -> None:
    asked = {"messages": [{"role": "user", "content": "sum 1"}]}

    for row in rows(mix=[asked, *MIX], rows=1000):
        roles = [message["role"] for message in row["messages"]]
        assert row == asked or not any(pair == ("user", "user") for pair in pairwise(roles))


def test_languages_can_be_chosen() -> None:
    def chinese(text: str) -> bool:
        return any("\u4e00" <= character <= "\u9fff" for character in text)

    answers = [row["messages"][-1]["content"] for row in rows(languages=("en",), mix=(), mix_share=0)]

    assert not any(chinese(answer) for answer in answers)
    assert all(chinese(row["messages"][-1]["content"]) for row in rows(languages=("zh",), mix=(), mix_share=0))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"name": " "}, "empty"),
        ({"author": ""}, "empty"),
        ({"rows": 0}, "at least 1"),
        ({"mix_share": 1.5}, "between 0 and 1"),
        ({"mix_share": float("nan")}, "between 0 and 1"),
        ({"mix": ()}, "the mix is empty"),
        ({"mix": [*MIX, {"instruction": "x"}]}, "row 11 of the mix has no messages"),
        ({"mix": [MIX]}, "row 1 of the mix has no messages"),
        ({"mix": [{"messages": ["x"]}]}, "row 1 of the mix has no messages"),
        ({"languages": ("xx",)}, "languages"),
        ({"languages": ()}, "languages"),
    ],
)
def test_bad_arguments_are_refused(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rows(**bad)
