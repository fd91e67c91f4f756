"""What can be said about a base before its weights are loaded: template, tokenizer, architecture, context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloom_data.templates import FrozenTemplate, read_template
from tuneloom_trainer.worker.protocol import WorkerFailed


@dataclass(frozen=True, slots=True)
class Base:
    """What turns conversations into tokens."""

    tokenizer: Any
    template: FrozenTemplate


def read_base(base_dir: Path) -> Base:
    """Raises WorkerFailed with what the base lacks."""
    try:
        template = read_template(base_dir)
    except ValueError as error:
        raise WorkerFailed("BASE_MODEL", f"base model: {error}") from error
    return Base(_load_tokenizer(base_dir), template)


def _load_tokenizer(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_dir, local_files_only=True, trust_remote_code=False)
