"""What turns conversations into tokens: read from a model directory, frozen as hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tuneloom_data.templates import read_template

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}\n"


def model_dir(directory: Path, **files: Any) -> Path:
    """A directory with `name` or `name__ext` files; dictionaries become JSON."""
    directory.mkdir(exist_ok=True)
    for name, content in {"tokenizer__json": {"added_tokens": []}, **files}.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_hashes_are_of_the_tokenizer_file_and_the_template_text(tmp_path: Path) -> None:
    found = read_template(model_dir(tmp_path, chat_template__jinja=TEMPLATE))

    assert found.tokenizer_sha256 == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    assert found.chat_template_sha256 == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert found.stop_tokens == ()


def test_the_same_template_inline_named_or_in_a_file_has_the_same_hash(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "other"}, {"name": "default", "template": TEMPLATE}]

    hashes = {
        read_template(model_dir(tmp_path / "file", chat_template__jinja=TEMPLATE)),
        read_template(model_dir(tmp_path / "inline", tokenizer_config__json={"chat_template": TEMPLATE})),
        read_template(model_dir(tmp_path / "named", tokenizer_config__json={"chat_template": named})),
    }

    assert len(hashes) == 1


def test_the_file_wins_over_the_inline_template(tmp_path: Path) -> None:
    found = read_template(
        model_dir(tmp_path, chat_template__jinja=TEMPLATE, tokenizer_config__json={"chat_template": "old"})
    )

    assert found.chat_template_sha256 == hashlib.sha256(TEMPLATE.encode()).hexdigest()


@pytest.mark.parametrize("eos", ["<|end|>", {"content": "<|end|>", "lstrip": False}])
def test_stop_tokens_are_the_tokenizers_and_the_generation_configs(tmp_path: Path, eos: Any) -> None:
    added = [{"id": 7, "content": "<|eot|>"}, {"id": 8, "content": "<|end|>"}, {"id": 9, "content": "<|pad|>"}]

    found = read_template(
        model_dir(
            tmp_path,
            chat_template__jinja=TEMPLATE,
            tokenizer__json={"added_tokens": added},
            tokenizer_config__json={"eos_token": eos},
            generation_config__json={"eos_token_id": [8, 7, 999]},
        )
    )

    assert found.stop_tokens == ("<|end|>", "<|eot|>")


@pytest.mark.parametrize("ids", [7, [7], None, []])
def test_one_id_none_or_a_list_are_all_ways_to_say_where_to_stop(tmp_path: Path, ids: Any) -> None:
    found = read_template(
        model_dir(
            tmp_path,
            chat_template__jinja=TEMPLATE,
            tokenizer__json={"added_tokens": [{"id": 7, "content": "<|eot|>"}]},
            generation_config__json={"eos_token_id": ids},
        )
    )

    assert found.stop_tokens == (("<|eot|>",) if ids else ())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer__json": None, "chat_template__jinja": TEMPLATE}, "tokenizer.json is missing"),
        ({}, "no chat template"),
        ({"tokenizer_config__json": {"chat_template": None}}, "no chat template"),
        ({"tokenizer_config__json": {"chat_template": [{"name": "rag", "template": "x"}]}}, "no chat template"),
        ({"tokenizer_config__json": "{torn"}, "tokenizer_config.json is not JSON"),
        ({"tokenizer__json": "{torn", "chat_template__jinja": TEMPLATE}, "tokenizer.json is not JSON"),
    ],
)
def test_what_is_missing_or_torn_is_named(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_template(model_dir(tmp_path, **files))
