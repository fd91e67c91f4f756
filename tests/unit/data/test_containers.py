"""Files that hold no rows say what they are and how to make rows of them, once and not once per line."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from tuneloom_data.contract import check_file

ROW = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})


def zipped(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "qa.xlsx", "a spreadsheet (.xlsx); write each line"),
        (zipped("_rels/.rels", "xl/workbook.xml"), "blob", "a spreadsheet"),
        (zipped("_rels/.rels", "word/document.xml"), "qa.docx", "a Word document"),
        (zipped("rows.jsonl"), "rows.zip", "a zip archive; unpack it"),
        (b"PAR1\x15\x04", "rows.parquet", "a Parquet file"),
        (b"ARROW1\x00\x00", "rows.arrow", "an Arrow file"),
        (b"\x1f\x8b\x08\x00", "rows.jsonl.gz", "a gzip archive; unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "qa.xls", "an old Office file"),
        (ROW.encode("utf-16"), "rows.jsonl", "UTF-16 text; save it as UTF-8"),
        (ROW.encode("utf-16-le"), "rows.jsonl", "this is no UTF-8, perhaps UTF-16"),
        (ROW.encode("utf-32-be"), "rows.jsonl", "this is no UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "a.png", "this is a binary file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "rows.jsonl", "git lfs pull"),
        (b"question,answer\na,b\n", "qa.csv", "a table of separated values"),
        (b"question,answer\n", "qa.csv", "a table of separated values"),
        (b"question\tanswer\na\tb\n", "blob", "a table of separated values"),
        (b"Once upon a time\nthere was a model.\n", "story.txt", "plain text"),
        (b'{\n  "messages": []\n}\n{\n  "messages": []\n}\n', "rows.json", "objects over several lines"),
    ],
)
def test_a_file_without_rows_is_named_once_with_the_way_out(tmp_path: Path, data: bytes, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)

    report = check_file(path)

    assert not report.passed
    assert report.rows == 0
    assert [cause.count for cause in report.causes] == [1]
    assert words in report.summary()
    assert "row 0" not in report.summary()


@pytest.mark.parametrize("name", ["rows.csv", "rows.txt", "rows.xlsx", "rows"])
def test_rows_are_rows_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ROW)

    assert check_file(tmp_path / name).passed


def test_one_byte_of_nothing_does_not_make_a_file_binary(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{ROW}\n{{"messages": "\x00"}}\n{ROW}\n')

    assert check_file(path).summary().startswith("1 of 3 rows cannot be trained on: row 2, column 15: not valid JSON")


def test_one_bad_first_line_does_not_make_a_file_foreign(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"a, b\n{ROW}\n")

    assert check_file(path).summary().startswith("1 of 2 rows cannot be trained on: row 1, column 1: not valid JSON")
