"""What turns a conversation into tokens, read from a model directory and frozen as hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class FrozenTemplate:
    """Hashes of tokenizer.json and of the chat template's text, and the strings that end an answer."""

    tokenizer_sha256: str
    chat_template_sha256: str
    stop_tokens: tuple[str, ...]


def read_template(model_dir: Path) -> FrozenTemplate:
    """Reads a Hugging Face model directory; raises ValueError naming the missing or bad file and the next step."""
    tokenizer = model_dir / "tokenizer.json"
    if not tokenizer.is_file():
        raise ValueError(
            "tokenizer.json is missing; save the model's fast tokenizer with tokenizer.save_pretrained(directory)"
        )
    config = _read_json(model_dir / "tokenizer_config.json")
    template = chat_template_text(model_dir, config)
    if template is None:
        raise ValueError(
            "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
            "use an instruction-tuned base or add one"
        )
    return FrozenTemplate(
        tokenizer_sha256=hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
        chat_template_sha256=hashlib.sha256(template.encode()).hexdigest(),
        stop_tokens=_stop_tokens(model_dir, config, _read_json(tokenizer)),
    )


def chat_template_text(model_dir: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """The default chat template, from its own file or from the tokenizer's configuration."""
    own_file = model_dir / "chat_template.jinja"
    if own_file.is_file():
        return own_file.read_text(encoding="utf-8")
    inline = tokenizer_config.get("chat_template")
    if isinstance(inline, list):
        named = {entry.get("name"): entry.get("template") for entry in inline}
        inline = named.get("default")
    return inline if isinstance(inline, str) else None


def _stop_tokens(model_dir: Path, tokenizer_config: dict[str, Any], tokenizer: dict[str, Any]) -> tuple[str, ...]:
    """The tokenizer's end token and every id the generation configuration ends at."""
    eos = tokenizer_config.get("eos_token")
    names = {eos["content"] if isinstance(eos, dict) else eos} if eos else set()
    ids = _read_json(model_dir / "generation_config.json").get("eos_token_id", [])
    by_id = {entry["id"]: entry["content"] for entry in tokenizer.get("added_tokens", [])}
    names |= {by_id[number] for number in (ids if isinstance(ids, list) else [ids]) if number in by_id}
    return tuple(sorted(names))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON ({error}); save the model again") from None
    return value if isinstance(value, dict) else {}
