"""The rows of a file, one at a time: JSON Lines, or one JSON array."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tuneloom_data import arrays, containers
from tuneloom_data.conversations import RowError
from tuneloom_data.decoding import decode
from tuneloom_data.limits import Limits, in_words

_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path, limits: Limits) -> Iterator[tuple[int, object | RowError]]:
    """Yields row numbers and decoded values or errors, in memory bounded by the longest row.

    Row numbers of JSON Lines are line numbers; blank lines are skipped. Row 0 is the file itself.
    """
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        if size > limits.file_bytes:
            yield _of_file(f"{in_words(size)} are more than the {in_words(limits.file_bytes)} allowed; split the file")
            return
        head = source.read(containers.HEAD_BYTES)
        if what := containers.foreign(head, path.name):
            yield _of_file(what)
            return
        source.seek(len(_BOM) if head.startswith(_BOM) else 0)
        is_array = head.removeprefix(_BOM).lstrip()[:1] == b"["
        yield from _limited(_array(source, limits) if is_array else _lines(source, limits), limits)


def _limited(rows: Iterator[tuple[int, object | RowError]], limits: Limits) -> Iterator[tuple[int, object | RowError]]:
    for count, (row, value) in enumerate(rows, start=1):
        if count > limits.rows:
            yield _of_file(f"more than the {limits.rows} rows allowed; split the file")
            return
        yield row, value


def _lines(source: BinaryIO, limits: Limits) -> Iterator[tuple[int, object | RowError]]:
    row = 0
    while line := source.readline(limits.row_bytes + 1):
        row += 1
        if len(line) > limits.row_bytes and not line.endswith(b"\n"):
            _skip_line(source)
            yield row, _too_long(row, limits)
        elif line.strip():
            yield row, decode(row, line.rstrip())


def _skip_line(source: BinaryIO) -> None:
    while (piece := source.readline(arrays.CHUNK_BYTES)) and not piece.endswith(b"\n"):
        pass


def _array(source: BinaryIO, limits: Limits) -> Iterator[tuple[int, object | RowError]]:
    row = 0
    line = 1 + _skip_to_bracket(source)
    try:
        for row, element in enumerate(arrays.split(source, max_bytes=limits.row_bytes, line=line), start=1):
            if len(element.text) > limits.row_bytes:
                yield row, _too_long(row, limits)
            else:
                yield row, decode(row, element.text, line=element.line)
    except arrays.BrokenArray as broken:
        problem = _too_long(0, limits).problem if broken.too_long else broken.problem
        yield (
            broken.number,
            RowError(broken.number, "", f"{problem}; nothing behind it was read", f"line {broken.line}"),
        )


def _skip_to_bracket(source: BinaryIO) -> int:
    """Moves behind the opening bracket; returns the number of lines before it."""
    lines = 0
    while (byte := source.read(1)) != b"[":
        lines += byte == b"\n"
    return lines


def _of_file(problem: str) -> tuple[int, RowError]:
    return 0, RowError(0, "", problem)


def _too_long(row: int, limits: Limits) -> RowError:
    return RowError(row, "", f"longer than the {in_words(limits.row_bytes)} a row may have; shorten or split it")
