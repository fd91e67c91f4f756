"""How long engines took to start on this machine: what a caller who waits can be told to expect."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import NamedTuple

import structlog

KEPT = 64
CONSIDERED = 5
log = structlog.get_logger()


class Start(NamedTuple):
    """One start that succeeded."""

    name: str
    kind: str
    seconds: float


class StartTimes:
    """The newest starts, kept in a file so that they outlive the host. Losing the file loses only an estimate."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = _read(path)

    def expected_seconds(self, name: str, kind: str) -> float | None:
        """Median of the last starts of this version, else of its kind, else of any; None before the first."""
        for fits in (
            [start for start in self._starts if start.name == name],
            [start for start in self._starts if start.kind == kind],
            self._starts,
        ):
            if fits:
                return round(median(start.seconds for start in fits[-CONSIDERED:]), 1)
        return None

    def note(self, name: str, kind: str, seconds: float) -> None:
        self._starts = [*self._starts, Start(name, kind, round(seconds, 2))][-KEPT:]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged = self._path.with_name(f"{self._path.name}.part")
            staged.write_text(json.dumps(self._starts))
            staged.rename(self._path)
        except OSError as error:
            log.warning(f"{self._path} cannot be written ({error.strerror}); start times are forgotten with this host")


def _read(path: Path) -> list[Start]:
    try:
        return [Start(str(name), str(kind), float(seconds)) for name, kind, seconds in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
