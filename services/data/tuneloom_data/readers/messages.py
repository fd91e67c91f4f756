"""The OpenAI `messages` format, with tool calls, weights, and the older function calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tuneloom_data.conversations import ROLES, Conversation, Message, Role, RowError
from tuneloom_data.parts import PartError, read_parts
from tuneloom_data.readers import tool_calls
from tuneloom_data.readers.reader import NO_MATCH, Match, Row, is_given, json_type
from tuneloom_data.text import unwritable

_TEXT_KEYS = ("tool_call_id", "name", "reasoning_content")
_TEXT_ONLY = "only text can be trained on; remove the row or its media"
# What would be lost without a word if it were passed over. Other unknown fields are notes.
_UNREAD_IN_ROW: Mapping[str, str] = {
    **dict.fromkeys(("images", "videos", "audios"), _TEXT_ONLY),
    "system": "put it into messages, as the first one, with role system",
}
_UNREAD_IN_MESSAGE: Mapping[str, str] = {
    **dict.fromkeys(("images", "videos", "audios", "audio"), _TEXT_ONLY),
    "refusal": "write what the model should say into content",
    "reasoning": "call it reasoning_content, or remove it",
    "thinking": "call it reasoning_content, or remove it",
}


class Messages:
    """Rows {'messages': [{'role', 'content'}, …]}; `tools` and other fields may stand beside."""

    name = "messages"

    def sniff(self, value: Row) -> Match:
        return Match(0.9, "messages") if "messages" in value else NO_MATCH

    def read(self, row: int, value: Row) -> Conversation | RowError:
        try:
            return _conversation(row, value)
        except _Unreadable as unreadable:
            return RowError(row, unreadable.field, unreadable.problem)


class _Unreadable(Exception):
    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def _conversation(row: int, value: Row) -> Conversation:
    if "messages" not in value:
        raise _Unreadable("messages", "missing; a row looks like {'messages': [{'role', 'content'}, …]}")
    entries = value["messages"]
    if not isinstance(entries, list) or not entries:
        raise _Unreadable("messages", "must be a list with at least one message")
    _refuse_unread(value, _UNREAD_IN_ROW, prefix="")
    calls = tool_calls.LegacyCalls()
    messages = tuple(_message(f"messages[{index}]", entry, calls) for index, entry in enumerate(entries))
    return Conversation(row=row, messages=messages, tools=_tools(value))


def _message(field: str, entry: Any, calls: tool_calls.LegacyCalls) -> Message:
    if not isinstance(entry, dict):
        raise _Unreadable(field, f"a message must be an object, this is a {json_type(entry)}")
    role = _role(field, entry)
    parts = read_parts(entry.get("content"))
    if isinstance(parts, PartError):
        raise _Unreadable(f"{field}.content{parts.path}", parts.problem)
    _refuse_unread(entry, _UNREAD_IN_MESSAGE, prefix=f"{field}.")
    extra = _extra(field, entry, calls)
    # OpenAI spells it weight: 0 | 1, others loss: bool. Absent and null both mean "train".
    for key in ("weight", "loss"):
        if entry.get(key) not in (None, 0, 1):
            raise _Unreadable(f"{field}.{key}", "must be 0 or 1")
    trained = role == "assistant" and 0 not in (entry.get("weight"), entry.get("loss"))
    return Message(role=role, parts=parts, trained=trained, extra=extra)


def _role(field: str, entry: Row) -> Role:
    role = entry.get("role")
    if role is None and {"from", "value"} <= entry.keys():
        raise _Unreadable(field, "this is a ShareGPT turn; write 'from' as role and 'value' as content")
    if role == "developer":  # OpenAI's newer word
        return "system"
    if role == "function":  # and an older one
        return "tool"
    if role not in ROLES:
        shown = repr(role[:40]) if isinstance(role, str) else json_type(role)
        raise _Unreadable(f"{field}.role", f"{shown} is not one of {', '.join(ROLES)}")
    return cast("Role", role)


def _extra(field: str, entry: Row, calls: tool_calls.LegacyCalls) -> dict[str, Any]:
    extra: dict[str, Any] = {key: entry[key] for key in _TEXT_KEYS if entry.get(key) is not None}
    for key, value in extra.items():
        if not isinstance(value, str):
            raise _Unreadable(f"{field}.{key}", f"must be a string, this is a {json_type(value)}")
    if entry.get("tool_calls"):
        extra["tool_calls"] = tool_calls.read(entry["tool_calls"])
        if extra["tool_calls"] is None:
            raise _Unreadable(f"{field}.tool_calls", tool_calls.SHAPE)
    if problem := calls.read_into(extra, entry):
        raise _Unreadable(f"{field}.{problem.key}", problem.words)
    for key, value in extra.items():
        if words := unwritable(value):
            raise _Unreadable(f"{field}.{key}", words)
    return extra


def _tools(value: Row) -> tuple[Mapping[str, Any], ...]:
    tools, functions = _objects(value, "tools"), _objects(value, "functions")
    if tools and functions:
        raise _Unreadable("functions", "stands beside tools, which replaced it; keep tools")
    return tuple(tools or ({"type": "function", "function": function} for function in functions))


def _objects(value: Row, key: str) -> list[Mapping[str, Any]]:
    given = value.get(key) or []
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise _Unreadable(key, f"must be a list of {key.removesuffix('s')} objects")
    return given


def _refuse_unread(entry: Row, unread: Mapping[str, str], *, prefix: str) -> None:
    for key, next_step in unread.items():
        if is_given(entry.get(key)):
            raise _Unreadable(f"{prefix}{key}", next_step)
