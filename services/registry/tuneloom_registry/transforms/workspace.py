"""The directory in which one transform runs: what is where. Both sides of the child's boundary use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROGRESS_CHARS = 200


@dataclass(frozen=True, slots=True)
class Workspace:
    """In: `build.json`, `source/`, `base/`, `headers/`. Out: `out/`, then `result.json`; `progress` meanwhile."""

    directory: Path

    @property
    def spec(self) -> Path:
        return self.directory / "build.json"

    @property
    def source(self) -> Path:
        """The version that is transformed: a checkpoint or an adapter."""
        return self.directory / "source"

    @property
    def base(self) -> Path:
        """Those files of its base that the action needs whole."""
        return self.directory / "base"

    @property
    def headers(self) -> Path:
        """Weight files of the base of which only the header is there; the rest is a hole."""
        return self.directory / "headers"

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @property
    def result(self) -> Path:
        return self.directory / "result.json"

    @property
    def needs(self) -> Path:
        """Which weight files of the base are needed whole after all."""
        return self.directory / "needs.json"

    @property
    def log(self) -> Path:
        return self.directory / "build.log"

    def tell(self, text: str) -> None:
        """Says how far the transform is."""
        (self.directory / "progress").write_text(text)

    def progress(self) -> str:
        """What was told last; empty when nothing was."""
        try:
            return (self.directory / "progress").read_text(errors="replace")[:PROGRESS_CHARS]
        except OSError:
            return ""
