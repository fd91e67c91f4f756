"""The data contract at row level: every row of a file is read, judged and counted."""

from __future__ import annotations

from pathlib import Path

from tuneloom_data.conversations import RowError
from tuneloom_data.duplicates import Duplicates, fingerprint
from tuneloom_data.formats import read_conversations
from tuneloom_data.limits import UNLIMITED, Limits
from tuneloom_data.objectives import Objective
from tuneloom_data.reports import MAX_ERRORS_KEPT, Cause, ContractReport

__all__ = ["MAX_ERRORS_KEPT", "Cause", "ContractReport", "check_file", "fill_report", "fingerprint"]


def check_file(path: Path, *, objective: Objective = Objective.SFT, limits: Limits = UNLIMITED) -> ContractReport:
    """Checks every row of a file, in memory bounded by its longest row."""
    report = ContractReport()
    fill_report(report, path, objective=objective, limits=limits)
    return report


def fill_report(
    report: ContractReport, path: Path, *, objective: Objective = Objective.SFT, limits: Limits = UNLIMITED
) -> None:
    """Like check_file; what was found before an exception stays in the report."""
    duplicates = Duplicates()
    for verdict in read_conversations(path, objective=objective, limits=limits):
        if isinstance(verdict, RowError):
            report.refuse(verdict)
        else:
            report.accept(verdict)
            duplicates.add(verdict)
    report.duplicate_rows = duplicates.count()
