"""Inference requests: parsed once, to see the model's name; sent on as they came, but for that name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tuneloom_common.errors import InvalidArgument

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MODEL_KEY = b'"model"'
_MODEL_MEMBER = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')
# Every letter of "model" is U+006x, so a key that spells it with escapes contains this.
_ESCAPED_LETTER = b"\\u006"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A JSON object that names a model."""

    model: str
    raw: bytes
    parsed: dict[str, Any]

    @classmethod
    def parse(cls, raw: bytes, *, required: tuple[str, ...]) -> InferenceRequest:
        """Raises InvalidArgument naming the position of a syntax error, or the parameter at fault."""
        parsed = _parse_json(raw)
        if not isinstance(parsed, dict):
            raise InvalidArgument(f"the body is a JSON {_kind(parsed)}; send an object", reason="INVALID_JSON")
        for name in ("model", *required):
            if name not in parsed:
                raise InvalidArgument(
                    f"{name!r} is missing from the body", field=name, reason="MISSING_REQUIRED_PARAMETER"
                )
        model = parsed["model"]
        if not isinstance(model, str):
            raise _wrong_type("model", model, "a string such as 'assistant'")
        if "messages" in required:
            _check_roles(parsed["messages"])
        return cls(model, raw, parsed)

    def for_engine(self, engine_model: str) -> bytes:
        """The body with the model's name replaced, all other bytes as the client wrote them if possible."""
        name = json.dumps(engine_model).encode()
        # With one spelling of the key in the whole body, that one is the member of the outermost object.
        if self.raw.count(_MODEL_KEY) == 1 and _ESCAPED_LETTER not in self.raw:
            member = _MODEL_MEMBER.search(self.raw)
            if member is not None:
                return b"".join((self.raw[: member.start()], b'"model":', name, self.raw[member.end() :]))
        return json.dumps({**self.parsed, "model": engine_model}).encode()


def _check_roles(messages: Any) -> None:
    """Templates ignore roles they do not know, or worse: what such a message says would be lost without a word."""
    if not isinstance(messages, list):
        raise _wrong_type("messages", messages, "an array of messages")
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            what = "is missing" if role is None else f"is {str(role)[:40]!r}"
            raise InvalidArgument(
                f"the role of messages[{number}] {what}; use one of {', '.join(ROLES)}",
                field=f"messages[{number}].role",
                reason="INVALID_ROLE",
            )


def _wrong_type(name: str, value: Any, wanted: str) -> InvalidArgument:
    return InvalidArgument(f"{name!r} is a JSON {_kind(value)}; send {wanted}", field=name, reason="INVALID_TYPE")


def _parse_json(raw: bytes) -> Any:
    if not raw:
        raise InvalidArgument("the body is empty; send a JSON object", reason="INVALID_JSON")
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at line {error.lineno} column {error.colno} (character {error.pos})"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not {error.encoding}"
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise InvalidArgument(f"the body is not JSON: {problem}", reason="INVALID_JSON")


def _kind(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
