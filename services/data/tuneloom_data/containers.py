"""Files that hold no JSON rows, known by their first bytes, and how to make rows of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

HEAD_BYTES = 1 << 16

_ROW = "{'messages': [{'role': 'user', 'content': …}, {'role': 'assistant', 'content': …}]}"
_FROM_TABLE = f"write each line of it as a row {_ROW} into a .jsonl file"
_UNPACK = "unpack it and give the file of rows inside"

_MAGIC: Mapping[bytes, str] = {
    b"PAR1": f"a Parquet file; {_FROM_TABLE}, for instance with pandas.read_parquet",
    b"ARROW1": f"an Arrow file; {_FROM_TABLE}, for instance with pandas.read_feather",
    b"\xd0\xcf\x11\xe0": f"an old Office file (.xls); {_FROM_TABLE}, for instance with pandas.read_excel",
    b"\x1f\x8b": f"a gzip archive; {_UNPACK}",
    b"BZh": f"a bzip2 archive; {_UNPACK}",
    b"\xfd7zXZ": f"an xz archive; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"a zstd archive; {_UNPACK}",
    b"7z\xbc\xaf": f"a 7z archive; {_UNPACK}",
    b"Rar!": f"a RAR archive; {_UNPACK}",
    b"%PDF": f"a PDF; write its questions and answers as rows {_ROW} into a .jsonl file",
    b"SQLite format 3": f"an SQLite database; {_FROM_TABLE}",
    b"version https://git-lfs": "a Git LFS pointer, not the file; fetch it with `git lfs pull`",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
_SEPARATORS = (b"\t", b",", b";")


def foreign(head: bytes, name: str) -> str:
    """What a file is that holds no JSON rows, and the next step; "" for one that may hold some."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"this is {what}"
    if head.startswith(b"PK\x03\x04"):
        return f"this is {_zipped(head, name)}"
    lines = [line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if lines and lines[0] == b"{":
        return "this is JSON objects over several lines; write each row on one line, or all of them into one array [ ]"
    if b"\x00" in head[:4]:
        return "this is no UTF-8, perhaps UTF-16; save the rows as UTF-8 JSON Lines"
    if not lines or any(line.startswith((b"{", b"[")) for line in lines):
        return ""
    if b"\x00" in head:
        return "this is a binary file; save the rows as UTF-8 JSON Lines"
    return f"this is {_text(lines, name)}"


def _zipped(head: bytes, name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    if b"xl/" in head or suffix == ".xlsx":
        return f"a spreadsheet (.xlsx); {_FROM_TABLE}, for instance with pandas.read_excel"
    if b"word/" in head or suffix == ".docx":
        return f"a Word document; write its questions and answers as rows {_ROW} into a .jsonl file"
    return f"a zip archive; {_UNPACK}"


def _text(lines: list[bytes], name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    first = [lines[0].count(separator) for separator in _SEPARATORS]
    second = [line.count(separator) for line in lines[1:2] for separator in _SEPARATORS]
    if suffix in (".csv", ".tsv") or any(0 < a == b for a, b in zip(first, second, strict=False)):
        return f"a table of separated values (CSV); {_FROM_TABLE}, for instance with csv.DictReader"
    return f"no JSON: plain text; objective sft learns answers, so write questions and answers as rows {_ROW}"
