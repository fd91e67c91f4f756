"""The vocabulary of training data: messages and conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tuneloom_data.parts import Part

Role = Literal["system", "user", "assistant", "tool"]
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


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of training data. `row` is its 1-based position in the file."""

    row: int
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


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
