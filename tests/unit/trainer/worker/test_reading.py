"""Which rows are trained on, and what is said about the others."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tuneloom_data.templates import FrozenTemplate
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.data.batches import TrainingData
from tuneloom_trainer.worker.data.reading import read_examples
from tuneloom_trainer.worker.objectives.sft import SupervisedFineTuning
from tuneloom_trainer.worker.preflight import Base
from tuneloom_trainer.worker.protocol import WorkerFailed

pytestmark = pytest.mark.worker


def load(path: Path, tokenizer: Any, *, stop_tokens: tuple[str, ...] = ("<|im_end|>",), **changes: Any) -> TrainingData:
    base = Base(tokenizer, FrozenTemplate("", "", stop_tokens))
    return SupervisedFineTuning().load(path, base, TrainingSpec(max_length=64, seed=1, **changes))


def row(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_the_report_counts_what_will_be_trained(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.save_rows(path, [row("q", "abc"), row("q", "abc"), row("q", "x" * 100)])

    data = load(path, tokenizer)
    report = data.report

    head = len("<user\nq>\n<assistant\n")  # the special tokens count as one each
    assert report.rows == 3
    assert report.tokens == 2 * (head + 3 + 2) + 64
    assert report.trained_tokens == 2 * 4 + 64 - head
    assert (report.truncated_rows, report.duplicate_rows) == (1, 1)
    assert report.sequences == len(data.dataset) == 2
    assert report.stop_token_trained


@pytest.mark.parametrize(
    ("rows", "options", "reason", "words"),
    [
        ([row("q", "a"), row("q", " ")], {}, "DATA_CONTRACT", "row 2, messages\\[1\\].content"),
        ([row("q", "a"), row("q" * 80, "a")], {}, "DATA_CONTRACT", "max_unusable_share=0.05: row 2; raise spec.max_le"),
        ([row("q" * 80, "a")] * 30, {}, "DATA_CONTRACT", r"30 of 30 rows .*: rows 1, 2, .*, 20 and 10 more;"),
        ([row("q" * 80, "a")], {"max_unusable_share": 1.0}, "DATA_CONTRACT", "1 of 1 rows"),
        ([row("q", "a")], {"stop_tokens": ()}, "STOP_TOKEN", "answer of row 1"),
        ([row("q", "a")], {"stop_tokens": ("</s>",)}, "STOP_TOKEN", "never learn to stop"),
        ([], {}, "DATA_CONTRACT", "no rows"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_with_row_and_way_out(
    tokenizer: Any, tmp_path: Path, rows: list[Any], options: dict[str, Any], reason: str, words: str
) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.save_rows(path, rows)

    with pytest.raises(WorkerFailed, match=words) as caught:
        load(path, tokenizer, **options)

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "preference",
    [{"label": False}, {"chosen": "good", "rejected": "bad"}, {"rejected_response": "bad"}],
    ids=lambda keys: "+".join(keys),
)
def test_preference_rows_are_not_trained_as_answers(tokenizer: Any, tmp_path: Path, preference: dict[str, Any]) -> None:
    """A file that came past the check at upload, or was stored by an earlier release."""
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": row("q", "a")}, {"messages": row("q", "bad"), **preference}]
    path.write_text("".join(json.dumps(fields) + "\n" for fields in rows))

    with pytest.raises(WorkerFailed, match=r"1 of 2 rows cannot be trained on: row 2") as caught:
        load(path, tokenizer)

    assert caught.value.reason == "DATA_CONTRACT"


def test_a_few_rows_that_are_too_long_are_left_out_and_named(tokenizer: Any, tmp_path: Path) -> None:
    """They passed the check at upload, which knows no tokens."""
    path = tmp_path / "rows.jsonl"
    long = row("q" * 80, "a")
    tiny.save_rows(path, [long, *([row("q", "a")] * 39), long])

    data = load(path, tokenizer)

    assert data.unusable_rows == (1, 41)
    assert (data.report.rows, data.report.unusable_rows, data.report.trained_tokens) == (41, 2, 39 * 2)
    with pytest.raises(WorkerFailed, match=r"2 of 41 rows .*max_unusable_share=0.04: rows 1, 41"):
        load(path, tokenizer, max_unusable_share=0.04)


def test_a_template_that_does_not_end_is_ended(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.save_rows(path, [row("q", "a")])
    endless = copy.deepcopy(tokenizer)
    loops = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(4)) + "{% endfor %}" * 4
    endless.chat_template = loops + tokenizer.chat_template

    with pytest.raises(WorkerFailed, match=r"row 1: .*did not end within 0.2 s") as caught:
        read_examples(path, endless, stop_tokens=("<|im_end|>",), max_length=64, max_unusable_share=0, row_seconds=0.2)

    assert caught.value.reason == "CHAT_TEMPLATE"
