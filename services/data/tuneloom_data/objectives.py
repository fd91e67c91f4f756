"""What a row is to teach. The same row can be good under one objective and harmful under another."""

from __future__ import annotations

from enum import StrEnum


class Objective(StrEnum):
    SFT = "sft"
    """Supervised fine-tuning: every trained answer is one to imitate."""


def read_objective(name: str) -> Objective:
    """Raises ValueError naming those there are."""
    try:
        return Objective(name)
    except ValueError:
        raise ValueError(f"objective {name[:40]!r} is not one of {', '.join(Objective)}") from None
