"""Follows a worker's event log while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuneloom_trainer.worker.protocol import LoggedEvent


class EventTail:
    """Reads whole lines appended since the last call. `after` is the last sequence that was stored."""

    def __init__(self, path: Path, *, after: int) -> None:
        self._path = path
        self._after = after
        self._offset = 0

    def read(self) -> Iterator[LoggedEvent]:
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
            logged = LoggedEvent.parse(line)
            if logged.sequence > self._after:
                self._after = logged.sequence
                yield logged
