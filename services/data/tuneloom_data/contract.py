"""The data contract at row level: a report over a whole file, bounded in memory by its number of rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tuneloom_data.conversations import Conversation, RowError
from tuneloom_data.formats import read_conversations

MAX_ERRORS_KEPT = 50


@dataclass(slots=True)
class ContractReport:
    """What a file holds. `errors` keeps the first MAX_ERRORS_KEPT of `bad_rows`."""

    rows: int = 0
    bad_rows: int = 0
    errors: list[RowError] = field(default_factory=list)
    assistant_turns: int = 0
    trained_turns: int = 0
    multi_turn_rows: int = 0
    unanswered_rows: int = 0
    duplicate_rows: int = 0
    characters: int = 0
    trained_characters: int = 0

    @property
    def passed(self) -> bool:
        return self.rows > 0 and self.bad_rows == 0

    def summary(self) -> str:
        """One line for an error message."""
        if not self.rows:
            return "the file has no rows"
        shown = "; ".join(str(error) for error in self.errors[:5])
        more = f"; and {self.bad_rows - 5} more" if self.bad_rows > 5 else ""
        return f"{self.bad_rows} of {self.rows} rows cannot be trained on: {shown}{more}"


def check_file(path: Path) -> ContractReport:
    """Checks every row of a file."""
    report = ContractReport()
    seen: Counter[bytes] = Counter()
    for verdict in read_conversations(path):
        report.rows += 1
        if isinstance(verdict, RowError):
            report.bad_rows += 1
            if len(report.errors) < MAX_ERRORS_KEPT:
                report.errors.append(verdict)
            continue
        _count(report, verdict)
        seen[fingerprint(verdict)] += 1
    report.duplicate_rows = sum(count - 1 for count in seen.values())
    return report


def fingerprint(conversation: Conversation) -> bytes:
    """Equal for conversations with equal messages and tools."""
    body = [[message.for_template() for message in conversation.messages], conversation.tools]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()


def _count(report: ContractReport, conversation: Conversation) -> None:
    assistant = [message for message in conversation.messages if message.role == "assistant"]
    report.assistant_turns += len(assistant)
    report.trained_turns += sum(message.trained for message in assistant)
    report.multi_turn_rows += len(assistant) > 1
    report.unanswered_rows += conversation.messages[-1].role != "assistant"
    report.characters += sum(len(message.content) for message in conversation.messages)
    report.trained_characters += sum(len(message.content) for message in assistant if message.trained)
