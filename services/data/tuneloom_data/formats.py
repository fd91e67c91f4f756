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

MAX_DEPTH = 64
_BOM = b"\xef\xbb\xbf"
_TEXT_KEYS = ("tool_call_id", "name", "reasoning_content")
_CALLS_SHAPE = "must be a list of {'function': {'name', 'arguments'}} objects with arguments that are JSON"
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
    if problem := _unwritable(list(tools)):
        return RowError(row, "tools", problem)
    return Conversation(row=row, messages=tuple(messages), tools=tuple(tools))


def _parse_message(row: int, field: str, entry: Any) -> Message | RowError:
    if not isinstance(entry, dict):
        return RowError(row, field, f"a message must be an object, this is a {_json_type(entry)}")
    role = entry.get("role")
    if role == "developer":
        role = "system"
    if role not in ROLES:
        shown = repr(role[:40]) if isinstance(role, str) else _json_type(role)
        return RowError(row, f"{field}.role", f"{shown} is not one of {', '.join(ROLES)}")
    content = _text_of(entry.get("content"))
    if content is None:
        return RowError(row, f"{field}.content", "must be a string or a list of text parts")
    extra = {key: entry[key] for key in _TEXT_KEYS if entry.get(key) is not None}
    for key, value in extra.items():
        if not isinstance(value, str):
            return RowError(row, f"{field}.{key}", f"must be a string, this is a {_json_type(value)}")
    if calls := entry.get("tool_calls"):
        extra["tool_calls"] = _parse_calls(calls)
        if extra["tool_calls"] is None:
            return RowError(row, f"{field}.tool_calls", _CALLS_SHAPE)
    for key, value in (("content", content), *extra.items()):
        if problem := _unwritable(value):
            return RowError(row, f"{field}.{key}", problem)
    if not content.strip() and not (role == "assistant" and calls):
        return RowError(row, f"{field}.content", f"the {role} turn is empty")
    # OpenAI spells it weight: 0 | 1, others loss: bool. Absent and null both mean "train".
    for key in ("weight", "loss"):
        if entry.get(key) not in (None, 0, 1):
            return RowError(row, f"{field}.{key}", "must be 0 or 1")
    trained = role == "assistant" and 0 not in (entry.get("weight"), entry.get("loss"))
    return Message(role=role, content=content, trained=trained, extra=extra)


def _parse_calls(calls: Any) -> list[dict[str, Any]] | None:
    """OpenAI writes a call's arguments as JSON text; chat templates, and vLLM before them, want the object."""
    if not isinstance(calls, list):
        return None
    parsed = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return None
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _decode(0, arguments.encode(errors="replace")) if arguments.strip() else {}
        if not isinstance(arguments, dict):
            return None
        parsed.append({**call, "function": {**function, "arguments": arguments}})
    return parsed


def _unwritable(value: Any) -> str:
    """Why a value cannot be written out again for a template; "" when it can. Walks, so that no depth overflows."""
    layer, depth = [value], 0
    while layer:
        if depth > MAX_DEPTH:
            return "nested too deeply to be a conversation"
        if any(isinstance(item, str) and not _encodable(item) for item in layer):
            return "holds half of a surrogate pair (\\ud800-\\udfff), which is no character; write the character itself"
        inner = [item for item in layer if isinstance(item, (dict, list))]
        layer = [child for item in inner for child in (item if isinstance(item, list) else (*item, *item.values()))]
        depth += 1
    return ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        start = len(_BOM) if source.read(len(_BOM)) == _BOM else 0
        source.seek(start)
        first = source.read(1)
        while first.isspace():
            first = source.read(1)
        source.seek(start)
        if first == b"[":
            yield from _read_array(source.read())
            return
        for row, line in enumerate(source, start=1):
            if line.strip():
                yield row, _decode(row, line.rstrip())


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
    except ValueError:
        return RowError(row, "", "holds a number of more than 4300 digits; shorten it")
    except RecursionError:
        return RowError(row, "", "nested too deeply to be a conversation")


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
