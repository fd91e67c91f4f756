"""What can be said about a base before its weights are loaded: template, tokenizer, architecture, context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloom_data.templates import FrozenTemplate, read_template
from tuneloom_trainer.bases import CONFIG_FILE, BaseConfig
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
        config = BaseConfig.parse((base_dir / CONFIG_FILE).read_bytes())
    except (ValueError, FileNotFoundError) as error:
        raise WorkerFailed("BASE_MODEL", f"base model: {error}") from error
    _require_known(config.model_type)
    return Base(_load_tokenizer(base_dir), template)


def _require_known(model_type: str) -> None:
    """The transformers that is installed here has the last word; the service goes by a list."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise WorkerFailed(
            "BASE_MODEL",
            f"base model: this worker's transformers does not know the architecture {model_type!r}; use a "
            "text-generating base that it knows",
        )


def _load_tokenizer(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_dir, local_files_only=True, trust_remote_code=False)
