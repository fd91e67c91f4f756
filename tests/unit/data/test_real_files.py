"""Files that others wrote. They are not part of the project: where the folder is absent, these tests skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuneloom_data.contract import check_file

REAL = Path(os.environ.get("TUNELOOM_TEST_REAL_DATA", Path(__file__).parents[4] / "shared" / "data" / "real"))

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder of real files at {REAL}")


@pytest.mark.parametrize(
    ("file", "rows", "words"),
    [
        ("alpaca_zh_demo.json", 1000, "this looks like the Alpaca format"),
        ("identity.json", 91, "this looks like the Alpaca format"),
        ("glaive_toolcall_en_demo.json", 300, "this looks like the ShareGPT format"),
        ("dpo_en_demo.json", 300, "this looks like preference data (pairs"),
        ("mllm_demo.json", 6, "images: only text can be trained on"),
        ("llava/unique_data.json", 6, "this looks like the ShareGPT format"),
        ("MedQA2019.xlsx", 0, "this is a spreadsheet (.xlsx)"),
        ("wiki_demo.txt", 0, "plain text"),
    ],
)
def test_a_real_file_is_told_in_one_cause_what_it_is(file: str, rows: int, words: str) -> None:
    report = check_file(REAL / file)

    assert (report.rows, report.bad_rows) == (rows, rows)
    assert len(report.causes) == 1, report.summary()
    assert words in report.summary()
