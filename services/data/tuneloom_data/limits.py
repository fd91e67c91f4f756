"""How much of other people's files is read before they are refused."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

MAX_FILE_BYTES = GIB
MAX_ROW_BYTES = 16 * MIB
MAX_ROWS = 5_000_000
MAX_MEMORY_BYTES = GIB
MAX_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one file, and of the child process that checks it.

    Reading stops at the file's and the rows'; a row that is too long is one bad row. Memory is address space; seconds
    are of the wall clock, for all files together.
    """

    file_bytes: int = MAX_FILE_BYTES
    row_bytes: int = MAX_ROW_BYTES
    rows: int = MAX_ROWS
    memory_bytes: int = MAX_MEMORY_BYTES
    seconds: float = MAX_SECONDS


UNLIMITED = Limits(file_bytes=1 << 62, row_bytes=1 << 62, rows=1 << 62)
"""For files of the caller's own, or that were admitted already. Memory is still bounded by the longest row."""


def in_words(size: int) -> str:
    """A number of bytes for a person: 16 MiB, 1.5 GiB, 300 bytes."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{size} bytes"
