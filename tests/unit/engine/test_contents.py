from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.engine.fakes import WEIGHTS, safetensors
from tuneloom_common.errors import FailedPrecondition
from tuneloom_engine.contents import check_model

CONFIG = b'{"architectures": ["TinyForCausalLM"]}'


def write(directory: Path, **files: bytes) -> Path:
    for name, content in {"config.json": CONFIG, "model.safetensors": WEIGHTS, **files}.items():
        (directory / name).write_bytes(content)
    return directory


def test_a_model_passes(tmp_path: Path) -> None:
    check_model(write(tmp_path), "chat")
    index = {"weight_map": {"a": "model.safetensors"}}
    check_model(write(tmp_path, **{"model.safetensors.index.json": json.dumps(index).encode()}), "chat")
    check_model(write(tmp_path, **{"model.safetensors": safetensors({"__metadata__": {"format": "pt"}}, 0)}), "chat")


def test_the_seed_model_passes() -> None:
    check_model(Path(__file__).parents[3] / "models/seed/weights", "seed")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b"{"}, r"config\.json is not a JSON object"),
        ({"config.json": b"[1]"}, r"config\.json is not a JSON object"),
        ({"config.json": b"{}"}, "neither model_type nor architectures"),
        ({"model.safetensors": b""}, "not a safetensors file"),
        ({"model.safetensors": b"pickled!" * 9}, "not a safetensors file"),
        ({"model.safetensors": (4).to_bytes(8, "little") + b"nope"}, "is not a JSON object"),
        ({"model.safetensors": WEIGHTS[:-1]}, "bytes, its header says"),
        ({"model.safetensors": WEIGHTS + b"more"}, "bytes, its header says"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-2.safetensors"}}'},
            r"model-2\.safetensors, which its index names, is missing",
        ),
    ],
)
def test_the_file_at_fault_is_named(tmp_path: Path, files: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(FailedPrecondition, match=sentence) as caught:
        check_model(write(tmp_path, **files), "chat--0123456789ab")
    assert caught.value.reason == "MODEL_INCOMPLETE"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FailedPrecondition, match=name.rpartition(".")[2]):
        check_model(tmp_path, "chat--0123456789ab")
