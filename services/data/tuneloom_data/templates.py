"""What turns a conversation into tokens, read from a model directory and frozen as hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloom_data.limits import MIB, in_words

# The largest known ones: a tokenizer of 33 MiB (Gemma 3), a configuration of 1.2 MiB, a template of 20 KiB.
MAX_TOKENIZER_BYTES = 128 * MIB
MAX_CONFIG_BYTES = 16 * MIB
MAX_TEMPLATE_BYTES = MIB

_SAVE_AGAIN = "save the model again"


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
    data = _read(tokenizer, MAX_TOKENIZER_BYTES)
    return FrozenTemplate(
        tokenizer_sha256=hashlib.sha256(data).hexdigest(),
        chat_template_sha256=hashlib.sha256(_encoded(template)).hexdigest(),
        stop_tokens=_stop_tokens(model_dir, config, _object(tokenizer.name, data)),
    )


def chat_template_text(model_dir: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The default chat template, from its own file or from the tokenizer's configuration."""
    own_file = model_dir / "chat_template.jinja"
    if own_file.is_file():
        return _text(own_file.name, _read(own_file, MAX_TEMPLATE_BYTES))
    inline = tokenizer_config.get("chat_template")
    if isinstance(inline, list):
        named = [entry for entry in inline if isinstance(entry, dict) and entry.get("name") == "default"]
        inline = named[-1].get("template") if named else None
    return inline if isinstance(inline, str) else None


def _stop_tokens(model_dir: Path, tokenizer_config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokenizer's end token and every id the generation configuration ends at."""
    ids = _read_json(model_dir / "generation_config.json").get("eos_token_id")
    by_id = _added_tokens(tokenizer)
    numbers = [number for number in (ids if isinstance(ids, list) else [ids]) if isinstance(number, int)]
    stops = {by_id[number] for number in numbers if number in by_id}
    return tuple(sorted(stops | _end_token(tokenizer_config)))


def _end_token(tokenizer_config: Mapping[str, Any]) -> set[str]:
    eos = tokenizer_config.get("eos_token")
    name = eos.get("content") if isinstance(eos, dict) else eos
    if name is not None and not isinstance(name, str):
        raise ValueError(f"tokenizer_config.json: eos_token must be a string; {_SAVE_AGAIN}")
    return {name} if name else set()


def _added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    try:
        return {int(entry["id"]): str(entry["content"]) for entry in tokenizer.get("added_tokens") or ()}
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"tokenizer.json: added_tokens must be a list of objects with id and content; {_SAVE_AGAIN}"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    return _object(path.name, _read(path, MAX_CONFIG_BYTES)) if path.is_file() else {}


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as source:
        if os.fstat(source.fileno()).st_size > max_bytes:
            raise ValueError(f"{path.name} is larger than the {in_words(max_bytes)} allowed; {_SAVE_AGAIN}")
        return source.read(max_bytes)


def _object(name: str, data: bytes) -> dict[str, Any]:
    text = _text(name, data)
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply; {_SAVE_AGAIN}") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}); {_SAVE_AGAIN}") from None
    return value if isinstance(value, dict) else {}


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 (byte {error.start}); {_SAVE_AGAIN}") from None


def _encoded(template: str) -> bytes:
    try:
        return template.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "tokenizer_config.json: chat_template holds half of a surrogate pair, which is no character; mend it"
        ) from None
