"""The caller's side of `python -m tuneloom_data.check`: how to start it, and how to read what it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tuneloom_data.limits import Limits, in_words
from tuneloom_data.objectives import Objective
from tuneloom_data.reports import ContractReport, as_json, from_json


class ExitStatus(IntEnum):
    """How the child ends. With the first, second and last it has printed a report."""

    PASSED = 0
    REFUSED = 1
    """At least one file does not pass."""
    USAGE = 2
    STOPPED = 3
    """Time or memory were over before the last file's end; the report says where."""


@dataclass(frozen=True, slots=True)
class FileReport:
    path: str
    report: ContractReport


@dataclass(frozen=True, slots=True)
class Report:
    """One report per file that was begun, in the order given."""

    files: tuple[FileReport, ...]

    @property
    def passed(self) -> bool:
        return bool(self.files) and all(file.report.passed for file in self.files)

    def to_json(self) -> str:
        """One line, so that it can be found in a log that others write to."""
        files = [{"path": file.path, **as_json(file.report)} for file in self.files]
        return json.dumps({"passed": self.passed, "files": files})


def check_command(paths: Sequence[Path], limits: Limits | None = None, *, objective: str = Objective.SFT) -> list[str]:
    """The command that checks files in a process of its own. It wants no environment and writes to stdout only."""
    bounds = limits or Limits()
    return [
        *(sys.executable, "-P", "-m", "tuneloom_data.check", "--json", "--objective", objective),
        *("--max-file-bytes", str(bounds.file_bytes), "--max-row-bytes", str(bounds.row_bytes)),
        *("--max-rows", str(bounds.rows), "--memory-bytes", str(bounds.memory_bytes), "--seconds", str(bounds.seconds)),
        *("--", *map(str, paths)),
    ]


def parse_report(stdout: str | bytes) -> Report:
    """Reads the child's last line; raises ValueError where there is no report, as after a kill."""
    text = stdout.decode(errors="replace") if isinstance(stdout, bytes) else stdout
    lines = text.strip().splitlines()
    try:
        value = json.loads(lines[-1])
        return Report(tuple(FileReport(str(entry["path"]), from_json(entry)) for entry in value["files"]))
    except (IndexError, KeyError, TypeError, ValueError):
        raise ValueError(
            "the data check ended without a report; it may have been killed for want of memory: try again, or split "
            "the file"
        ) from None


def out_of_memory(limits: Limits) -> str:
    return f"the check needs more than {in_words(limits.memory_bytes)} of memory; split the file"


def out_of_time(limits: Limits) -> str:
    return f"the check takes longer than {limits.seconds:g} s; split the file"
