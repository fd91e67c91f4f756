"""Exceptions as logs may show them: their type, where they were raised, and only what is known to hold no data.

An exception's message may quote a prompt, a row, a header or a statement's parameters. So a message is shown when
we wrote it for a caller or when the operating system did; of all others the type and the frames have to do. Frames
show code and never the values of variables.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator

from tuneloom_common.errors import TuneloomError

MAX_FRAMES = 40
MAX_CHAINED = 5
MAX_MESSAGE_CHARS = 500


def describe(error: BaseException) -> str:
    """The type, and the message where it can hold no data."""
    name = type(error).__name__
    if isinstance(error, TuneloomError | sqlite3.OperationalError):
        return f"{name}: {str(error)[:MAX_MESSAGE_CHARS]}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.strerror:
        where = f": {error.filename!r}" if isinstance(error.filename, str) else ""
        return f"{name}: [Errno {error.errno}] {error.strerror[:MAX_MESSAGE_CHARS]}{where}"
    module = type(error).__module__
    return name if module == "builtins" else f"{module}.{name}"


def text_of(error: BaseException) -> str:
    """The traceback with its causes, first things first, like Python's but for messages of unknown content."""
    return "\n\n".join(reversed(list(_chain(error))))


def _chain(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    link = ""
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < MAX_CHAINED:
        seen.add(id(current))
        yield _one(current) + link
        if current.__cause__ is not None:
            current, link = current.__cause__, "\n\nThe above exception was the direct cause of the following:"
        elif not current.__suppress_context__:
            current, link = current.__context__, "\n\nDuring the handling of the above exception, another occurred:"
        else:
            return


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-MAX_FRAMES))
    head = f"Traceback (most recent call last):\n{frames}" if frames else ""
    parts = [f"{head}{describe(error)}"]
    if isinstance(error, BaseExceptionGroup):
        for number, inner in enumerate(error.exceptions, start=1):
            parts.append(_indented(f"{number} of {len(error.exceptions)} in the group:\n{text_of(inner)}"))
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
