"""A spec is held against its base before the job is accepted, without fetching a weight."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.manifests import Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.bases import CONFIG_FILE, MAX_CONFIG_BYTES, BaseConfig, Bases, known_model_types
from tuneloom_trainer.specs import TrainingSpec

LAYERS = {
    "model.embed_tokens.weight": [320, 32],
    "model.layers.0.self_attn.q_proj.weight": [32, 32],
    "model.layers.0.mlp.up_proj.weight": [64, 32],
    "model.layers.0.input_layernorm.weight": [32],
    "model.layers.0.self_attn.q_proj.bias": [32],
}


def header(shapes: dict[str, list[int]]) -> bytes:
    """A safetensors file that ends before its data."""
    tensors = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.fixture
async def objects(tmp_path: Path) -> ObjectStore:
    return await ObjectStore(f"file://{tmp_path}/objects").create()


async def stored(objects: ObjectStore, directory: Path, **files: bytes) -> Manifest:
    """A base; keywords are its files, "config" and "model"."""
    names = {"config": CONFIG_FILE, "model": "model.safetensors", "more": "more.safetensors"}
    directory.mkdir()
    for key, content in files.items():
        (directory / names[key]).write_bytes(content)
    return Manifest(kind="base", files=await objects.put_directory(directory))  # type: ignore[arg-type]


def config(**fields: Any) -> bytes:
    return json.dumps({"model_type": "qwen2", "max_position_embeddings": 1024, **fields}).encode()


async def fit(
    objects: ObjectStore, manifest: Manifest, spec: TrainingSpec, asked: Collection[str] = ()
) -> TrainingSpec:
    return await Bases(objects).fit(spec, manifest, base_model="seed", asked=asked)


async def test_max_length_is_the_context_where_the_recipe_wants_more(objects: ObjectStore, tmp_path: Path) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config())

    assert (await fit(objects, manifest, TrainingSpec())).max_length == 1024
    assert (await fit(objects, manifest, TrainingSpec(max_length=512), {"max_length"})).max_length == 512


@pytest.mark.parametrize("length", [1025, 2048, 100_000])
async def test_a_max_length_above_the_context_is_refused_with_field_limit_and_base(
    objects: ObjectStore, tmp_path: Path, length: int
) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config())

    with pytest.raises(InvalidArgument, match=f"seed has a context of 1024 tokens, not {length}") as caught:
        await fit(objects, manifest, TrainingSpec(max_length=length), {"max_length"})

    assert caught.value.field == "spec.max_length"


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"text_config": "odd"}, None),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_the_context_is_found_where_architectures_keep_it(fields: dict[str, Any], context: int | None) -> None:
    assert BaseConfig.parse(json.dumps(fields).encode()).context == context


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (config(model_type="quux"), "the architecture 'quux' of seed is not one that can be trained"),
        (config(model_type="quux", auto_map={"AutoModel": "x.Y"}), "brings code of its own"),
        (b"{}", "the architecture '' of seed"),
        (b"[]", "cannot be read: not a JSON object"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b" " * (MAX_CONFIG_BYTES + 1), "has no config.json of at most"),
    ],
)
async def test_a_base_that_cannot_be_trained_is_refused(
    objects: ObjectStore, tmp_path: Path, content: bytes, words: str
) -> None:
    manifest = await stored(objects, tmp_path / "base", config=content)

    with pytest.raises(InvalidArgument, match=words) as caught:
        await fit(objects, manifest, TrainingSpec())

    assert caught.value.field == "base_model"


async def test_known_code_is_used_where_a_base_brings_its_own_too(objects: ObjectStore, tmp_path: Path) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config(model_type="phi3", auto_map={"AutoModel": "x.Y"}))

    assert await fit(objects, manifest, TrainingSpec(max_length=64)) == TrainingSpec(max_length=64)


@pytest.mark.parametrize("target", ["q_proj", "up_proj", "mlp.up_proj", "model.layers.0.self_attn.q_proj"])
async def test_target_modules_that_are_there_are_accepted(objects: ObjectStore, tmp_path: Path, target: str) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config(), model=header({}), more=header(LAYERS))
    spec = TrainingSpec(max_length=64, lora={"target_modules": (target,)})  # type: ignore[arg-type]

    assert await fit(objects, manifest, spec) == spec


@pytest.mark.parametrize("target", ["foo", "proj", "input_layernorm", "all-linear", "embed_tokens"])
async def test_target_modules_that_match_nothing_are_refused(objects: ObjectStore, tmp_path: Path, target: str) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config(), model=header(LAYERS))
    spec = TrainingSpec(lora={"target_modules": ("q_proj", target)})  # type: ignore[arg-type]

    with pytest.raises(
        InvalidArgument, match=f"'{target}' is no linear layer of seed .*; it has q_proj, up_proj$"
    ) as caught:
        await fit(objects, manifest, spec)

    assert caught.value.field == "spec.lora.target_modules"
    assert (await fit(objects, manifest, spec.model_copy(update={"tuning": "full"}))).tuning == "full"


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"[]  ", struct.pack("<Q", 1 << 40) + b"{}"]
)
async def test_files_that_are_no_safetensors_say_nothing(objects: ObjectStore, tmp_path: Path, content: bytes) -> None:
    manifest = await stored(objects, tmp_path / "base", config=config(), model=content)
    spec = TrainingSpec(max_length=64, lora={"target_modules": ("foo",)})  # type: ignore[arg-type]

    assert await fit(objects, manifest, spec) == spec


@pytest.mark.worker
def test_the_known_architectures_are_those_of_the_workers_transformers() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert known_model_types() == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
