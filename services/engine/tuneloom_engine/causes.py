"""Why an engine did not start, from its log: the lines that say it, without stack frames, banners and prefixes.

For starts only: what is logged later may quote what people wrote.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READ_BYTES = 256 << 10
MAX_LINES = 6
MAX_LINE_CHARS = 400
# "(EngineCore pid=7) ERROR 11-21 13:44:29 [core.py:1510] " and uvicorn's "ERROR:    "
_PREFIX = re.compile(
    r"^(?:\(\w+ pid=\d+\) )?(?:(?P<level>[A-Z]+) [0-9-]+ [0-9:]+ \[[^\]]*\] ?|(?P<plain>[A-Z]+): {4,})?"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?:: |$)")
_FRAME = re.compile(r"^(?:\s|Traceback |During handling |The above exception )")
# What vLLM's outer processes say about the failure of an inner one.
_SECOND_HAND = re.compile(r"[Ss]ee root cause above|Engine core initialization failed|EngineDeadError")
_NOISE = re.compile(r"[Ww]arning|it/s\]|^\[?[IW]\d{4}")
_PYDANTIC = re.compile(r"^\d+ validation errors? for \w+\s+(?:Value error, )?")
_ABOUT_INPUT = re.compile(r"\s*\[type=\w+, input_value=.*|^\s*For further information visit .*")


@dataclass(frozen=True, slots=True)
class Cause:
    """`sentence` fits into a message; `lines` are what it was taken from."""

    sentence: str
    lines: str


def cause_of(log: Path, status: int | None) -> Cause:
    """The cause of a failed start whose output is in `log`; `status` is None while the process runs."""
    lines = [_line(line) for line in _end(log).splitlines()]
    found = _exception(lines)
    if not found and status is not None and status < 0:
        return Cause(_killed(-status), "")
    found = found or _last_words(lines)
    return Cause(_sentence(found) or "it says nothing about the cause", "\n".join(found))


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name} ended it" + (", as the kernel does when memory runs out" if number == signal.SIGKILL else "")


@dataclass(frozen=True, slots=True)
class _Line:
    level: str
    text: str


def _line(raw: str) -> _Line:
    match = _PREFIX.match(raw)
    if match is None:
        return _Line("", raw.rstrip())
    return _Line(match["level"] or match["plain"] or "", raw[match.end() :].rstrip())


def _exception(lines: list[_Line]) -> list[str]:
    """The last exception told first hand, with the lines of its message."""
    for start in reversed(range(len(lines))):
        text = lines[start].text
        if _EXCEPTION.match(text) and not _SECOND_HAND.search(text):
            return list(_message(lines[start:]))
    return []


def _message(lines: list[_Line]) -> Iterator[str]:
    for number, line in enumerate(lines[:MAX_LINES]):
        if not line.text.strip() or (number and (line.level != lines[0].level or line.text.startswith("Traceback"))):
            return
        if text := _ABOUT_INPUT.sub("", line.text).rstrip():
            yield _clipped(text)


def _last_words(lines: list[_Line]) -> list[str]:
    """Of a process that ended without an exception, such as a program that said what it lacks."""
    said = [
        line.text
        for line in lines
        if line.level in ("", "ERROR", "CRITICAL")
        and line.text
        and not (_FRAME.match(line.text) or _NOISE.search(line.text) or _SECOND_HAND.search(line.text))
    ]
    return [_clipped(text) for text in said[-MAX_LINES:]]


def _sentence(lines: list[str]) -> str:
    """One line: an exception's message without its class, unless that is all there is."""
    text = " ".join(line.strip() for line in lines[:3] if line.strip())
    _, _, message = text.partition(": ")
    return _clipped(_PYDANTIC.sub("", message) if message and _EXCEPTION.match(text) else text).rstrip(". ")


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 1] + "…"


def _end(log: Path) -> str:
    try:
        with log.open("rb") as source:
            source.seek(max(0, source.seek(0, os.SEEK_END) - READ_BYTES))
            return source.read().decode(errors="replace")
    except OSError:
        return ""
