"""What turns conversations into tokens: read from a model directory, frozen as hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tuneloom_data.templates import MAX_CONFIG_BYTES, MAX_TEMPLATE_BYTES, MAX_TOKENIZER_BYTES, read_template

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}\n"


def model_dir(directory: Path, **files: Any) -> Path:
    """A directory with `name` or `name__ext` files; dictionaries become JSON."""
    directory.mkdir(exist_ok=True)
    for name, content in {"tokenizer__json": {"added_tokens": []}, **files}.items():
        if content is not None:
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            data = text if isinstance(text, bytes) else text.encode()
            (directory / name.replace("__", ".")).write_bytes(data)
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


def test_a_tokenizer_has_a_largest_size_and_is_not_read_beyond_it(tmp_path: Path) -> None:
    directory = model_dir(tmp_path, chat_template__jinja=TEMPLATE)
    with (directory / "tokenizer.json").open("wb") as sparse:
        sparse.truncate(MAX_TOKENIZER_BYTES + 1)

    with pytest.raises(ValueError, match=r"tokenizer.json is larger than the 128 MiB allowed; save the model again"):
        read_template(directory)


@pytest.mark.parametrize("ids", [7, [7], [7, [8], {"a": 1}, "x"], None, []])
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
        ({"tokenizer__json": "[" * 100_000, "chat_template__jinja": TEMPLATE}, "tokenizer.json is nested too deeply"),
        ({"tokenizer_config__json": "9" * 5000}, "tokenizer_config.json is not JSON"),
        ({"tokenizer__json": {"added_tokens": [{"id": 1}]}, "chat_template__jinja": TEMPLATE}, "added_tokens must be"),
        ({"tokenizer__json": {"added_tokens": 7}, "chat_template__jinja": TEMPLATE}, "added_tokens must be"),
        ({"tokenizer_config__json": {"chat_template": TEMPLATE, "eos_token": 7}}, "eos_token must be a string"),
        ({"tokenizer_config__json": {"chat_template": ["x", {"name": "default"}]}}, "no chat template"),
        ({"tokenizer_config__json": {"chat_template": "\ud800"}}, "chat_template holds half of a surrogate pair"),
        ({"chat_template__jinja": b"\xff"}, "chat_template.jinja is not UTF-8 .byte 0"),
        ({"tokenizer__json": b"\xff", "chat_template__jinja": TEMPLATE}, "tokenizer.json is not UTF-8"),
        ({"chat_template__jinja": "x" * (MAX_TEMPLATE_BYTES + 1)}, "chat_template.jinja is larger than the 1 MiB"),
        ({"tokenizer_config__json": " " * (MAX_CONFIG_BYTES + 1)}, "tokenizer_config.json is larger than the 16 MiB"),
    ],
)
def test_what_is_missing_or_torn_is_named(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_template(model_dir(tmp_path, **files))
