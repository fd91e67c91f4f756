"""What is said about a base before its weights are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tuneloom_trainer.worker.preflight import read_base
from tuneloom_trainer.worker.protocol import WorkerFailed

pytestmark = pytest.mark.worker


def alien(base: Path) -> None:
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "quux"}))


BREAK: dict[str, tuple[Callable[[Path], None], str]] = {
    "architecture": (alien, "does not know the architecture 'quux'"),
    "no config": (lambda base: (base / "config.json").unlink(), "config.json"),
    "bad config": (lambda base: (base / "config.json").write_text("[]"), "not a JSON object"),
    "no tokenizer": (lambda base: (base / "tokenizer.json").unlink(), "tokenizer.json is missing"),
}


@pytest.mark.parametrize(("damage", "words"), BREAK.values(), ids=BREAK)
def test_a_base_that_cannot_be_trained_is_named(
    base_dir: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    base = shutil.copytree(base_dir, tmp_path / "base")
    damage(base)

    with pytest.raises(WorkerFailed, match=words) as caught:
        read_base(base)

    assert caught.value.reason == "BASE_MODEL"


def test_a_whole_base_gives_tokenizer_and_template(base_dir: Path) -> None:
    base = read_base(base_dir)

    assert base.template.stop_tokens == ("<|im_end|>",)
    assert base.tokenizer.chat_template
