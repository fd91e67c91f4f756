"""Follows a worker's event log while it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EventTail:
    """Reads whole lines appended since the last call. `after` is the last sequence that was stored."""

    def __init__(self, path: Path, *, after: int) -> None:
        self._path = path
        self._after = after
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields the new events in order; a line still being written is left for the next call."""
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            event: dict[str, Any] = json.loads(line)
            if event["seq"] > self._after:
                self._after = event["seq"]
                yield event
