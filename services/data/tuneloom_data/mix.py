"""Ordinary dialogues out of a file, to be mixed with generated ones."""

from __future__ import annotations

from pathlib import Path

from tuneloom_data.conversations import RowError, TrainingRow
from tuneloom_data.formats import read_conversations
from tuneloom_data.limits import UNLIMITED, Limits
from tuneloom_data.reports import ContractReport


def read_mix(path: Path, *, limits: Limits = UNLIMITED) -> list[TrainingRow]:
    """Rows in the `messages` format, from a file in any format that can be read.

    Raises ValueError with one sentence that names the file and, where rows are at fault, the rows.
    """
    report, rows = ContractReport(), []
    try:
        for verdict in read_conversations(path, limits=limits):
            if isinstance(verdict, RowError):
                report.refuse(verdict)
            else:
                report.accept(verdict)
                rows.append(verdict.as_row())
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); give a .jsonl or .json file of ordinary dialogues"
        raise ValueError(f"{path}: {problem}") from None
    if not report.passed:
        raise ValueError(f"{path}: {report.summary()}")
    return rows
