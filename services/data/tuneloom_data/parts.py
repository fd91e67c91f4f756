"""What a message is made of: parts. Text is the one that can be trained on; the others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


Part = TextPart

_TEXT_ONLY = "only text can be trained on; remove the row, or the part"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("image_url", "image", "input_image"), f"an image: {_TEXT_ONLY}"),
    **dict.fromkeys(("input_audio", "audio", "audio_url"), f"sound: {_TEXT_ONLY}"),
    **dict.fromkeys(("video_url", "video", "input_video"), f"a video: {_TEXT_ONLY}"),
    **dict.fromkeys(("file", "input_file", "document"), f"a file: {_TEXT_ONLY}"),
    "refusal": "a refusal: write what the model should say as a part of type text",
    **dict.fromkeys(("thinking", "reasoning"), "reasoning: write it into the message's reasoning_content"),
    **dict.fromkeys(("tool_use", "tool_call"), "a tool call: write it into the message's tool_calls"),
    "tool_result": "a tool's result: write it as a message with role tool",
    **dict.fromkeys(("input_text", "output_text"), "text under another name: write its type as text"),
}


@dataclass(frozen=True, slots=True)
class PartError:
    """Content that is no sequence of parts. `path` continues the content's, such as "[2].text"."""

    path: str
    problem: str


def read_parts(content: object) -> tuple[Part, ...] | PartError:
    """Parts of a message's content: None, a string, or a list of typed parts."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if not isinstance(content, list):
        return PartError("", "must be a string or a list of text parts")
    parts = []
    for index, entry in enumerate(content):
        part = _read_part(entry)
        if isinstance(part, str):
            return PartError(f"[{index}]", part)
        parts.append(part)
    return tuple(parts)


def _read_part(entry: object) -> Part | str:
    if not isinstance(entry, dict) or not isinstance(kind := entry.get("type"), str):
        return "must be a text part, {'type': 'text', 'text': …}"
    if kind in _REFUSED:
        return f"is {_REFUSED[kind]}"
    if kind != "text":
        return f"{kind[:40]!r} is not a known type of part; text parts look like {{'type': 'text', 'text': …}}"
    text = entry.get("text")
    return TextPart(text) if isinstance(text, str) else "a text part needs its text as a string"
