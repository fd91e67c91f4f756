"""The terminal: one console for results, one for errors."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
