"""An adapter as vLLM needs it. Imports nothing, because every process of vLLM imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter ready to be loaded. `id` is fixed by the content, above 0 and below 2**60."""

    name: str
    id: int
    directory: Path
