"""`python -m tuneloom_data.check FILE... [--json]`: checks files in a process that holds nothing of its caller.

Prints one report, as a line of JSON or for a person. Exit status: 0 every file passes, 1 one does not, 2 wrong
arguments, 3 time or memory were over first (the report says where). Any other status is a crash without a report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tuneloom_data.child import ExitStatus, FileReport, Report, out_of_memory, out_of_time
from tuneloom_data.confinement import OutOfTime, confine, time_limit
from tuneloom_data.contract import fill_report
from tuneloom_data.conversations import RowError
from tuneloom_data.limits import Limits
from tuneloom_data.objectives import Objective
from tuneloom_data.reports import ContractReport


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    options = _parser().parse_args(arguments)
    limits = Limits(
        file_bytes=options.max_file_bytes,
        row_bytes=options.max_row_bytes,
        rows=options.max_rows,
        memory_bytes=options.memory_bytes,
        seconds=options.seconds,
    )
    confine(memory_bytes=limits.memory_bytes, seconds=limits.seconds)
    report, stopped = check(options.files, Objective(options.objective), limits)
    sys.stdout.write((report.to_json() if options.json else _for_a_person(report)) + "\n")
    if stopped:
        return ExitStatus.STOPPED
    return ExitStatus.PASSED if report.passed else ExitStatus.REFUSED


def check(files: Sequence[Path], objective: Objective, limits: Limits) -> tuple[Report, bool]:
    """The report, and whether a limit of time or memory stopped it."""
    begun: list[FileReport] = []
    try:
        with time_limit(limits.seconds):
            for path in files:
                begun.append(FileReport(str(path), ContractReport()))
                _check_file(begun[-1].report, path, objective, limits)
    except OutOfTime:
        return _stopped(begun, out_of_time(limits))
    except MemoryError:
        return _stopped(begun, out_of_memory(limits))
    return Report(tuple(begun)), False


def _check_file(report: ContractReport, path: Path, objective: Objective, limits: Limits) -> None:
    try:
        fill_report(report, path, objective=objective, limits=limits)
    except OSError as error:
        report.refuse(RowError(0, "", f"cannot be read: {error.strerror}; give a readable .jsonl or .json file"))


def _stopped(begun: list[FileReport], problem: str) -> tuple[Report, bool]:
    report = begun[-1].report
    report.refuse(RowError(0, "", f"{problem} (after {report.rows} rows)"))
    return Report(tuple(begun)), True


def _for_a_person(report: Report) -> str:
    return "\n".join(f"{file.path}: {file.report.summary()}" for file in report.files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuneloom_data.check", description="Checks training data.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--objective", choices=list(Objective), default=Objective.SFT)
    default = Limits()
    parser.add_argument("--max-file-bytes", type=int, default=default.file_bytes)
    parser.add_argument("--max-row-bytes", type=int, default=default.row_bytes)
    parser.add_argument("--max-rows", type=int, default=default.rows)
    parser.add_argument("--memory-bytes", type=int, default=default.memory_bytes)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of the wall clock, for all files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
