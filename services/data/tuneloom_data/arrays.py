"""Splits a JSON array into the texts of its elements, in memory bounded by the longest one.

Only brackets, strings and the commas between elements are looked at: an element that is not JSON costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK_BYTES = 1 << 20

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_INNERMOST = rb'[\[{](?:[^"\[\]{}]++|' + _STRING + rb")*+[\]}]"  # at once: most brackets hold none
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb"|" + _INNERMOST + rb")*+", re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)


class BrokenArray(Exception):
    """The array cannot be followed beyond its element `number`, counted from 1."""

    def __init__(self, number: int, line: int, problem: str = "", *, too_long: bool = False) -> None:
        super().__init__(number, line, problem)
        self.number = number
        self.line = line
        self.problem = problem
        self.too_long = too_long


@dataclass(frozen=True, slots=True)
class Element:
    """The text of one element, with the white space around it. `line` is where the text begins."""

    text: bytes
    line: int


def split(source: BinaryIO, *, max_bytes: int, line: int = 1) -> Iterator[Element]:
    """Elements of the array whose opening bracket was just read. Raises BrokenArray behind the last good one."""
    window, start, position, depth, number = b"", 0, 0, 0, 1
    while True:
        position, depth, end = _advance(window, position, depth)
        if not end:
            if len(window) - start > max_bytes:
                raise BrokenArray(number, line + _blank_lines(window[start:]), too_long=True)
            more = source.read(CHUNK_BYTES)
            if not more:
                raise BrokenArray(
                    number, line + _blank_lines(window[start:]), "the file ends before the array does; it was cut off"
                )
            window, start, position = window[start:] + more, 0, position - start
            continue
        text = window[start:position]
        start = position = position + 1
        if end == b"," or number > 1 or text.strip():
            yield Element(text, line)
            number += 1
        line += text.count(b"\n")
        if end == b"]":
            break
    if window[start:].strip() or source.read(CHUNK_BYTES).strip():
        raise BrokenArray(number, line, "there is text behind the end of the array")


def _advance(window: bytes, position: int, depth: int) -> tuple[int, int, bytes]:
    """Goes on to the comma or bracket that ends an element; where the window ends first, that is b""."""
    while True:
        match = (_INSIDE if depth else _BETWEEN).match(window, position)
        position = match.end() if match else position
        found = window[position : position + 1]
        if found in (b"", b'"'):  # a quote here opens a string that the window cuts
            return position, depth, b""
        if found in b"[{":
            depth += 1
        elif depth:
            depth -= 1
        elif found in b",]":
            return position, depth, found
        position += 1


def _blank_lines(text: bytes) -> int:
    """Lines before the first one that is not blank."""
    return text[: len(text) - len(text.lstrip())].count(b"\n")
