"""The terminal: one console for results, one for errors; lists as tables for people, as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)
GAP = "  "
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON; docs/cli.md has the shape.")]


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns. Nothing is ever cut: an identifier that is not whole is none."""
    from rich.cells import cell_len
    from rich.markup import escape

    lines = [tuple(headings), *(tuple(" ".join(cell.split()) for cell in row) for row in rows)]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(headings))]
    for number, line in enumerate(lines):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        text = escape(GAP.join(padded).rstrip())
        out.print(f"[bold]{text}[/]" if number == 0 else text, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write(text: str) -> None:
    """Somebody else's words, byte for byte: no markup, no wrapping, tabs stay tabs."""
    out.file.write(text)
    out.file.flush()


def duration(seconds: float) -> str:
    """ "1:02:03", or "2:03" below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.2f} GB"
