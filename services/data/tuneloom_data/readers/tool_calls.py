"""Calls of tools as chat templates want them, from both spellings that OpenAI has had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneloom_data.conversations import RowError
from tuneloom_data.decoding import decode

SHAPE = "must be a list of {'function': {'name', 'arguments'}} objects with arguments that are JSON"
_LEGACY_SHAPE = "must be {'name', 'arguments'} with arguments that are JSON"


@dataclass(frozen=True, slots=True)
class CallError:
    """What is wrong with the field `key` of a message."""

    key: str
    words: str


def read(calls: object) -> list[dict[str, Any]] | None:
    """OpenAI writes a call's arguments as JSON text; chat templates, and vLLM before them, want the object."""
    if not isinstance(calls, list):
        return None
    parsed = []
    for call in calls:
        function = _function(call.get("function")) if isinstance(call, dict) else None
        if function is None:
            return None
        parsed.append({**call, "function": function})
    return parsed


class LegacyCalls:
    """Reads `function_call` and role `function` (2023) as one tool call and its result.

    The old format has no ids. These have nine letters and digits, which is what Mistral's templates insist on.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: tuple[str, str] | None = None

    def read_into(self, extra: dict[str, Any], entry: Mapping[str, object]) -> CallError | None:
        """Adds to a message's extra fields what its legacy fields say."""
        if (call := entry.get("function_call")) is not None:
            return self._call(extra, entry, call)
        if entry.get("role") == "function":
            return self._result(extra)
        return None

    def _call(self, extra: dict[str, Any], entry: Mapping[str, object], call: object) -> CallError | None:
        if entry.get("role") != "assistant":
            return CallError("function_call", "only an assistant turn can call; move it to the turn that calls")
        if "tool_calls" in extra:
            return CallError("function_call", "stands beside tool_calls, which replaced it; keep tool_calls")
        function = _function(call)
        if function is None:
            return CallError("function_call", _LEGACY_SHAPE)
        self._count += 1
        self._open = (function["name"], f"call{self._count:05d}")
        extra["tool_calls"] = [{"id": self._open[1], "type": "function", "function": function}]
        return None

    def _result(self, extra: dict[str, Any]) -> CallError | None:
        if "name" not in extra:
            return CallError("name", "missing; a function's result names the function")
        if self._open is None or self._open[0] != extra["name"]:
            return CallError("name", "no function_call of that name stands before this result; add it")
        extra.setdefault("tool_call_id", self._open[1])
        self._open = None
        return None


def _function(function: object) -> dict[str, Any] | None:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = decode(0, arguments.encode(errors="replace")) if arguments.strip() else {}
    if isinstance(arguments, RowError) or not isinstance(arguments, dict):
        return None
    return {**function, "arguments": arguments}
