"""The vocabulary of training data: messages and conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `trained` is False for everything but assistant turns, and for those whose weight is 0.

    `extra` carries what a chat template may want besides role and content: tool_calls, tool_call_id, name.
    """

    role: Role
    content: str
    trained: bool
    extra: Mapping[str, Any]

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
    """A row that cannot be trained on. `field` is a path inside the row such as "messages[2].content"."""

    row: int
    field: str
    problem: str

    def __str__(self) -> str:
        where = f"row {self.row}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.problem}"
