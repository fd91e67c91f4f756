"""The vocabulary of training data: messages and conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tuneloom_data.parts import Part

Role = Literal["system", "user", "assistant", "tool"]
TrainingRow = dict[str, Any]
"""A row in the `messages` format, as it stands in a file."""

ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `trained` is False for everything but assistant turns, and for those whose weight is 0.

    `extra` carries what a chat template may want besides role and content: tool_calls, tool_call_id, name.
    """

    role: Role
    parts: tuple[Part, ...]
    trained: bool
    extra: Mapping[str, Any]

    @property
    def content(self) -> str:
        return self.parts[0].text if len(self.parts) == 1 else "".join(part.text for part in self.parts)

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates read it."""
        return {"role": self.role, "content": self.content, **self.extra}

    def as_entry(self) -> dict[str, Any]:
        """The message as a row in the `messages` format holds it."""
        weight = {"weight": 0} if self.role == "assistant" and not self.trained else {}
        return {**self.for_template(), **weight}


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of training data. `row` is its 1-based position in the file."""

    row: int
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def as_row(self) -> TrainingRow:
        """The conversation as a row in the `messages` format, from which it can be read again."""
        tools = {"tools": [dict(tool) for tool in self.tools]} if self.tools else {}
        return {"messages": [message.as_entry() for message in self.messages], **tools}


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that cannot be trained on; row 0 is the file itself.

    `field` is a path inside the row such as "messages[2].content"; `place` a position in the file's text such as
    "column 7", apart from the problem, which is the same for all rows that have it.
    """

    row: int
    field: str
    problem: str
    place: str = ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"row {self.row}" if self.row else "", self.field, self.place) if part)
        return f"{where}: {self.problem}" if where else self.problem
