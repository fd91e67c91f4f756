"""The end of a log file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tuneloom_trainer.jobs import LogTail


async def read_tail(path: Path, wanted: int) -> LogTail | None:
    """The last whole lines of a file within so many bytes; None when there is no file."""
    return await asyncio.to_thread(_read, path, wanted)


def _read(path: Path, wanted: int) -> LogTail | None:
    try:
        with path.open("rb") as log:
            begin = max(0, log.seek(0, 2) - wanted)
            log.seek(max(0, begin - 1))
            tail = log.read(wanted + min(begin, 1))
    except FileNotFoundError:
        return None
    return LogTail.of(tail, cut=begin > 0)
