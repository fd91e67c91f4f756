"""The seam of the readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tuneloom_data.conversations import Conversation, RowError

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Match:
    """How sure a reader is that a row is in its format, from 0 to 1, and the field it knows it by."""

    confidence: float
    field: str = ""


NO_MATCH = Match(0.0)


class Reader(Protocol):
    """Reads one format. `sniff` looks at names and types of fields only; `read` gives a verdict on any object."""

    @property
    def name(self) -> str: ...

    def sniff(self, value: Row) -> Match: ...

    def read(self, row: int, value: Row) -> Conversation | RowError: ...


def is_given(value: object) -> bool:
    """False for what exporters write where there is nothing: null, NaN, and empty strings, lists and objects."""
    return value is not None and value == value and value not in ("", [], {})


def json_type(value: object) -> str:
    """What JSON calls a value's type."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
