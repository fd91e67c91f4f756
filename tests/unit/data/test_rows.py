"""Rows out of files, one at a time: arrays are followed element by element, and everything has a bound."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloom_data import arrays
from tuneloom_data.conversations import RowError
from tuneloom_data.limits import Limits, in_words
from tuneloom_data.rows import read_rows


def rows_of(tmp_path: Path, data: str | bytes, **limits: Any) -> list[tuple[int, object]]:
    path = tmp_path / "rows.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(path, Limits(**limits)))


def problems(rows: list[tuple[int, object]]) -> list[str]:
    return [str(value) for _, value in rows if isinstance(value, RowError)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, so that windows end anywhere."""

    def __init__(self, data: bytes, count: int) -> None:
        super().__init__(data)
        self._count = count

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, self._count) if size != -1 else -1)


@settings(deadline=None)
@given(st.lists(values, max_size=5), st.sampled_from([None, 1]), st.integers(1, 40), st.booleans())
def test_any_array_is_split_into_its_elements(
    elements: list[Any], indent: int | None, chunk: int, ascii_only: bool
) -> None:
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode()
    source = Trickle(text, chunk)
    source.read(1)

    found = [json.loads(element.text) for element in arrays.split(source, max_bytes=1 << 20)]

    assert found == elements


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"1", b" ", b"\n", b"\xff"]), max_size=30))
def test_what_is_no_array_ends_too(tokens: list[bytes]) -> None:
    data = b"".join(tokens)
    found = []
    with suppress(arrays.BrokenArray):
        found.extend(arrays.split(Trickle(data, 3), max_bytes=1 << 20))

    assert b",".join(element.text for element in found) in data


def test_a_bad_element_costs_itself_alone(tmp_path: Path) -> None:
    bad = ["{'a': 1}", '{"a": 1,}', '"tab\there"', "", "9" * 5000, "nope"]
    text = "[1,\n" + ",\n".join(bad) + ",\n2]"

    rows = rows_of(tmp_path, text)

    assert [row for row, value in rows if isinstance(value, RowError)] == [2, 3, 4, 5, 6, 7]
    assert (rows[0], rows[-1]) == ((1, 1), (8, 2))
    assert problems(rows)[0].startswith("row 2, line 2: not valid JSON: Expecting property name")
    assert problems(rows)[3].startswith("row 5, line 5: not valid JSON")


def test_bytes_that_are_not_utf_8_cost_their_element_alone(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, b'["gr\xfcn", "blau"]')

    assert problems(rows) == ["row 1, byte 3: not UTF-8; save the file as UTF-8"]
    assert rows[1] == (2, "blau")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2", "row 2, line 1: the file ends before the array does; it was cut off"),
        ('[1,\n{"a": "', "row 2, line 2: the file ends before the array does"),
        ("[1] [2]", "row 2, line 1: there is text behind the end of the array"),
        ("[1,]", "row 2, line 1: not valid JSON"),
    ],
)
def test_a_broken_array_names_the_row_where_it_breaks(tmp_path: Path, text: str, words: str) -> None:
    *good, (_, error) = rows_of(tmp_path, text)

    assert good == [(1, 1)]
    assert str(error).startswith(words)


def test_a_line_that_is_too_long_is_named_and_skipped(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, '{"a": 1}\n{"b": "' + "x" * 100 + '"}\n{"c": 3}', row_bytes=20)

    assert [row for row, _ in rows] == [1, 2, 3]
    assert problems(rows) == ["row 2: longer than the 20 bytes a row may have; shorten or split it"]


def test_an_element_that_is_too_long_is_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, '[{"a": 1}, {"b": "' + "x" * 100 + '"}, {"c": 3}]', row_bytes=20)

    assert [row for row, _ in rows] == [1, 2, 3]
    assert problems(rows) == ["row 2: longer than the 20 bytes a row may have; shorten or split it"]


def test_an_element_longer_than_what_is_held_ends_the_reading(tmp_path: Path) -> None:
    long = "x" * (arrays.CHUNK_BYTES + 100)

    rows = rows_of(tmp_path, f'[{{"a": 1}}, "{long}", {{"c": 3}}]', row_bytes=50)

    assert [row for row, _ in rows] == [1, 2]
    assert problems(rows)[0].endswith("shorten or split it; nothing behind it was read")


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[1,\n2,\n3\n]", '{"a": 1}\n{"a": 2}\n{"a": 3}\n'])
def test_a_file_has_so_many_rows_and_no_more(tmp_path: Path, text: str) -> None:
    rows = rows_of(tmp_path, text, rows=2)

    assert len(rows) == 3
    assert problems(rows) == ["more than the 2 rows allowed; split the file"]
    assert rows_of(tmp_path, text, rows=3)[-1][0] == 3


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    assert problems(rows_of(tmp_path, "[" + "1," * 1000 + "1]", file_bytes=1024)) == [
        "2 KiB are more than the 1 KiB allowed; split the file"
    ]


@pytest.mark.parametrize(
    ("size", "words"), [(5, "5 bytes"), (1536, "1.5 KiB"), (16 << 20, "16 MiB"), (1 << 30, "1 GiB")]
)
def test_sizes_are_told_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
