"""What options and files mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_cli.artifacts import dataset_id, locate, model_files
from tuneloom_cli.options import option_names, parse_overrides, parse_size
from tuneloom_common.errors import InvalidArgument, NotFound


def test_overrides_reach_their_fields() -> None:
    spec = parse_overrides(
        [
            "learning_rate=1e-3",
            "lora.r=8",
            "lora.target_modules=q_proj,v_proj",
            "packing=false",
            "method=full",
            "tuning=full",
        ],
        ["Who are you?"],
    )
    assert spec.learning_rate == 1e-3
    assert spec.lora.r == 8
    assert list(spec.lora.target_modules) == ["q_proj", "v_proj"]
    assert spec.HasField("packing")
    assert not spec.packing
    assert spec.method == jobs_pb2.METHOD_FULL
    assert spec.tuning == jobs_pb2.TUNING_FULL
    assert list(spec.sample_prompts) == ["Who are you?"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lora.rank=8", "did you mean lora.r?"),
        ("learningrate=1", "did you mean learning_rate?"),
        ("learning_rate", "option=value"),
        ("max_steps=many", "max_steps"),
        ("method=magic", "method"),
        ("zzz=1", "tuneloom jobs recipes"),
    ],
)
def test_a_bad_override_is_named(setting: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said.replace("?", r"\?")):
        parse_overrides([setting])


def test_every_option_can_be_set() -> None:
    assert {"method", "lora.r", "save_steps", "lora.use_rslora"} <= set(option_names())


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2_000_000_000), ("500mb", 500_000_000), ("123", 123), ("1.5KB", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "two", "2TB", "-1", "0"])
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--max-shard-size"):
        parse_size(text)


def test_dataset_ids_come_from_file_names() -> None:
    assert dataset_id(Path("My Data (v2).jsonl")) == "my-data-v2"
    assert dataset_id(Path("数据.jsonl")) == "data"


def test_a_model_directory_needs_a_config_and_safetensors(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        model_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="safetensors"):
        model_files(tmp_path)
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"")
    (tmp_path / "modeling_custom.py").write_text("")
    assert {path.name for path in model_files(tmp_path)} == {"config.json", "model-00001-of-00001.safetensors"}


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere", "just-a-name", "a/b/c"])
def test_a_source_that_is_nothing_is_named(source: str) -> None:
    with pytest.raises(NotFound, match="neither a directory nor a hub name"):
        locate(source)
