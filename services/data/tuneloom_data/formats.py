"""Reads rows in the OpenAI `messages` format from JSON Lines or a JSON array, one verdict per row.

A bad row never hides the rows after it and never becomes a silently masked one: it is a RowError with the row's
number, the field and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloom_data.conversations import ROLES, Conversation, Message, RowError

_EXTRA_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content")
_FOREIGN = {
    "instruction": "Alpaca",
    "conversations": "ShareGPT",
    "chosen": "preference",
    "prompt": "prompt/completion",
}


def read_conversations(path: Path) -> Iterator[Conversation | RowError]:
    """Yields one verdict per row, in file order. Blank lines are skipped but counted."""
    for row, value in _read_values(path):
        yield value if isinstance(value, RowError) else parse_row(row, value)


def parse_row(row: int, value: Any) -> Conversation | RowError:
    """Checks one decoded row against the `messages` format."""
    if not isinstance(value, dict):
        return RowError(row, "", f"a row must be a JSON object, this is a {_json_type(value)}")
    if "messages" not in value:
        for key, name in _FOREIGN.items():
            if key in value:
                return RowError(row, key, f"this looks like the {name} format; convert it to {{'messages': […]}} first")
        return RowError(row, "messages", "missing; a row looks like {'messages': [{'role', 'content'}, …]}")
    entries = value["messages"]
    if not isinstance(entries, list) or not entries:
        return RowError(row, "messages", "must be a list with at least one message")
    messages = []
    for index, entry in enumerate(entries):
        parsed = _parse_message(row, f"messages[{index}]", entry)
        if isinstance(parsed, RowError):
            return parsed
        messages.append(parsed)
    if not any(message.role == "assistant" for message in messages):
        return RowError(row, "messages", "no assistant turn, so there is nothing to learn; add the answer")
    if not any(message.trained for message in messages):
        return RowError(row, "messages", "every assistant turn has weight 0; give at least one weight 1")
    for key in ("images", "videos", "audios"):
        if value.get(key):
            return RowError(row, key, "only text can be trained on; remove the row or its media")
    tools = value.get("tools") or ()
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        return RowError(row, "tools", "must be a list of tool objects")
    return Conversation(row=row, messages=tuple(messages), tools=tuple(tools))


def _parse_message(row: int, field: str, entry: Any) -> Message | RowError:
    if not isinstance(entry, dict):
        return RowError(row, field, f"a message must be an object, this is a {_json_type(entry)}")
    role = entry.get("role")
    if role == "developer":
        role = "system"
    if role not in ROLES:
        return RowError(row, f"{field}.role", f"{role!r} is not one of {', '.join(ROLES)}")
    content = _text_of(entry.get("content"))
    if content is None:
        return RowError(row, f"{field}.content", "must be a string or a list of text parts")
    extra = {key: entry[key] for key in _EXTRA_KEYS if entry.get(key) is not None}
    if not content.strip() and not (role == "assistant" and "tool_calls" in extra):
        return RowError(row, f"{field}.content", f"the {role} turn is empty")
    trained = role == "assistant" and _is_trained(entry)
    return Message(role=role, content=content, trained=trained, extra=extra)


def _is_trained(entry: dict[str, Any]) -> bool:
    # OpenAI spells it weight: 0 | 1, others loss: bool. Absent and null both mean "train".
    marks = (entry.get("weight"), entry.get("loss"))
    return all(mark is None or bool(mark) for mark in marks)


def _text_of(content: Any) -> str | None:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return None


def _read_values(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as source:
        first = source.read(1)
        while first.isspace():
            first = source.read(1)
        source.seek(0)
        if first == b"[":
            yield from _read_array(source.read())
            return
        for row, line in enumerate(source, start=1):
            if line.strip():
                yield row, _decode(row, line)


def _read_array(data: bytes) -> Iterator[tuple[int, Any]]:
    values = _decode(1, data)
    if isinstance(values, RowError):
        yield 1, values
        return
    yield from enumerate(values, start=1)


def _decode(row: int, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RowError(row, "", f"not UTF-8 at byte {error.start}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        return RowError(row, "", f"not valid JSON at {where}: {error.msg}")
    except RecursionError:
        return RowError(row, "", "nested too deeply to be a conversation")


def _json_type(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
