"""Reads the rows of a file as conversations, one verdict per row.

A bad row never hides the rows after it and never becomes a silently masked one: it is a RowError with the row's
number, the field and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuneloom_data.conversations import Conversation, RowError
from tuneloom_data.limits import UNLIMITED, Limits
from tuneloom_data.objectives import Objective
from tuneloom_data.readers.reader import json_type
from tuneloom_data.readers.table import reader_for
from tuneloom_data.rows import read_rows
from tuneloom_data.rules import broken_rule


def read_conversations(
    path: Path, *, objective: Objective = Objective.SFT, limits: Limits = UNLIMITED
) -> Iterator[Conversation | RowError]:
    """Yields one verdict per row, in file order; what is wrong with the file itself is an error of row 0."""
    for row, value in read_rows(path, limits):
        yield value if isinstance(value, RowError) else parse_row(row, value, objective=objective)


def parse_row(row: int, value: object, *, objective: Objective = Objective.SFT) -> Conversation | RowError:
    """Checks one decoded row: the reader of its format, then the rules."""
    if not isinstance(value, dict):
        return RowError(row, "", f"a row must be a JSON object, this is a {json_type(value)}")
    verdict = reader_for(value, objective).read(row, value)
    if isinstance(verdict, RowError):
        return verdict
    return broken_rule(verdict) or verdict
