"""Patterns over module names in an adapter's configuration: matched as PEFT matches them, within a bound of time.

They are regular expressions that somebody else wrote, and twenty characters are enough for one that never ends.
Python's own engine runs them, so that they mean here what they mean to PEFT; it looks for signals while it matches,
and a timer of this process's CPU time ends it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Generic, TypeVar

MAX_PATTERN_CHARS = 4096
MATCH_SECONDS = 10.0
Value = TypeVar("Value")


class Overrides(Generic[Value]):
    """Values by pattern, such as `rank_pattern`. The first pattern that matches wins."""

    def __init__(self, by_pattern: Mapping[str, Value]) -> None:
        self._compiled = [(_compiled(rf"(.*\.)?({pattern})$"), value) for pattern, value in by_pattern.items()]

    def get(self, module: str, default: Value) -> Value:
        """A pattern matches a whole name or its end after a dot."""
        return next((value for pattern, value in self._compiled if pattern.match(module)), default)


def probe(pattern: str, modules: Iterable[str]) -> None:
    """Matches as PEFT does with `target_modules`; the answer is PEFT's business, here only the time counts."""
    compiled = _compiled(pattern)
    for module in modules:
        compiled.fullmatch(module)


@contextmanager
def bounded_matching(seconds: float = MATCH_SECONDS) -> Iterator[None]:
    """ValueError inside the block when it computes for too long. Only in a process's main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise ValueError(f"the patterns take longer than {seconds:g} s to match; write simpler ones")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"the pattern {pattern[:40]}… is longer than {MAX_PATTERN_CHARS} characters")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern[:80]!r} is not a regular expression: {error}") from None
