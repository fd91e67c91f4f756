"""Values as the databases give them back."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(value: datetime) -> datetime:
    """A stored time with its zone, which SQLite does not keep."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
