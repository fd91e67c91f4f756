"""What a file holds: a report of bounded size, however many rows are bad."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tuneloom_data.conversations import Conversation, RowError

MAX_ERRORS_KEPT = 50
MAX_CAUSES_KEPT = 50
MAX_ROWS_NAMED = 5
_INDEX = re.compile(r"\[\d+\]")


@dataclass(slots=True)
class Cause:
    """One reason why rows are bad.

    `rows` are the first of the `count`, `place` is where in the first of them. In `field`, [] is an index that differs.
    """

    field: str
    reason: str
    count: int
    rows: tuple[int, ...]
    place: str = ""

    def __str__(self) -> str:
        if self.count == 1:
            return str(RowError(self.rows[0], self.field, self.reason, self.place))
        rows = ", ".join(map(str, self.rows)) + (", …" if self.count > len(self.rows) else "")
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.reason} ({self.count} rows: {rows})"

    def add(self, error: RowError) -> None:
        self.count += 1
        if self.field != error.field:
            self.field = _without_indices(error.field)
        if len(self.rows) < MAX_ROWS_NAMED:
            self.rows = (*self.rows, error.row)


@dataclass(slots=True)
class ContractReport:
    """What a file holds.

    `errors` keeps the first MAX_ERRORS_KEPT, `causes` the first MAX_CAUSES_KEPT kinds of them, each with its count.
    An error of the file itself (row 0: no rows in it, too large, …) is among them, but no bad row.
    """

    rows: int = 0
    bad_rows: int = 0
    errors: list[RowError] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    assistant_turns: int = 0
    trained_turns: int = 0
    multi_turn_rows: int = 0
    unanswered_rows: int = 0
    duplicate_rows: int = 0
    characters: int = 0
    trained_characters: int = 0
    _by_key: dict[tuple[str, str, bool], Cause] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        return self.rows > 0 and not self.causes

    @property
    def unlisted_rows(self) -> int:
        """Bad rows that belong to none of the causes kept."""
        return self.bad_rows - sum(cause.count for cause in self.causes if cause.rows[0])

    def summary(self) -> str:
        """One line for an error message."""
        if self.passed:
            return f"all {self.rows} rows are good"
        of_file = [cause.reason for cause in self.causes if not cause.rows[0]]
        shown = [cause for cause in self.causes if cause.rows[0]][:MAX_ROWS_NAMED]
        if not shown:
            return "; ".join(of_file) or "the file has no rows"
        rest = self.bad_rows - sum(cause.count for cause in shown)
        listed = "; ".join([*of_file, *map(str, shown), *([f"and {rest} more"] if rest else [])])
        return f"{self.bad_rows} of {self.rows} rows cannot be trained on: {listed}"

    def refuse(self, error: RowError) -> None:
        """Counts a bad row, or an error of the file."""
        if error.row:
            self.rows += 1
            self.bad_rows += 1
        if len(self.errors) < MAX_ERRORS_KEPT:
            self.errors.append(error)
        key = (_without_indices(error.field), error.problem, not error.row)
        if key in self._by_key:
            self._by_key[key].add(error)
        elif len(self.causes) < MAX_CAUSES_KEPT:
            self._by_key[key] = Cause(error.field, error.problem, 1, (error.row,), error.place)
            self.causes.append(self._by_key[key])

    def accept(self, conversation: Conversation) -> None:
        """Counts a good row."""
        assistant = [message for message in conversation.messages if message.role == "assistant"]
        self.rows += 1
        self.assistant_turns += len(assistant)
        self.trained_turns += sum(message.trained for message in assistant)
        self.multi_turn_rows += len(assistant) > 1
        self.unanswered_rows += conversation.messages[-1].role != "assistant"
        self.characters += sum(len(message.content) for message in conversation.messages)
        self.trained_characters += sum(len(message.content) for message in assistant if message.trained)


def as_json(report: ContractReport) -> dict[str, Any]:
    """The report as JSON; `passed` and `summary` are derived and only there to be read."""
    counts = {name: getattr(report, name) for name in _COUNTS}
    lists = {"errors": [asdict(error) for error in report.errors], "causes": [asdict(cause) for cause in report.causes]}
    return {"passed": report.passed, "summary": report.summary(), **counts, **lists}


def from_json(value: Mapping[str, Any]) -> ContractReport:
    """A report that `as_json` wrote, in this release or another: unknown fields are passed over."""
    counts = {name: int(value.get(name, 0)) for name in _COUNTS}
    errors = [RowError(**_known(RowError, entry)) for entry in value.get("errors", ())]
    causes = [
        Cause(**{**_known(Cause, entry), "rows": tuple(map(int, entry["rows"]))}) for entry in value.get("causes", ())
    ]
    return ContractReport(**counts, errors=errors, causes=causes)


def _known(kind: type[RowError | Cause], entry: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: entry[each.name] for each in fields(kind) if each.name in entry}


_COUNTS = tuple(each.name for each in fields(ContractReport) if each.type == "int")


def _without_indices(path: str) -> str:
    return _INDEX.sub("[]", path)
