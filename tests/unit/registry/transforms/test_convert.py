from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.registry.transforms.conftest import (
    COMPANIONS,
    SHAPES,
    TARGETS,
    arrays,
    write_adapter,
    write_base,
    write_safetensors,
)
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms import convert
from tuneloom_registry.transforms.specs import TransformResult, TransformSpec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.adapters import read_adapter
from tuneloom_registry.weights.headers import read_header, read_model
from tuneloom_registry.weights.tensors import from_float32, read_float32, to_float32

UNLIMITED = 1 << 40


def write_checkpoint(directory: Path, *, dtype: str = "F32") -> Path:
    """What the trainer writes for an adapter: PEFT's parameter names with the adapter's own name in them."""
    write_adapter(directory)
    path = directory / "adapter_model.safetensors"
    trained = {
        name.replace(".weight", ".default.weight"): (dtype, read_float32(tensor))
        for name, tensor in read_header(path).items()
    }
    path.unlink()
    write_safetensors(directory / "weights.safetensors", trained)
    (directory / "optimizer.safetensors").write_bytes(b"large")
    (directory / "checkpoint.json").write_text("{}")
    return directory


def write_full(directory: Path, shapes: dict[str, tuple[int, ...]] = SHAPES, *, dtype: str = "F32") -> Path:
    generator = np.random.default_rng(5)
    directory.mkdir()
    values = {name: (dtype, generator.standard_normal(shape)) for name, shape in reversed(shapes.items())}
    write_safetensors(directory / "weights.safetensors", values)
    (directory / "checkpoint.json").write_text("{}")
    return directory


def run(checkpoint: Path, base: Path, out: Path, *, max_shard_bytes: int = UNLIMITED) -> TransformResult:
    """A conversion of what is given whole; `out` becomes the output."""
    workspace = Workspace(out.with_name(f"{out.name}-workspace"))
    workspace.directory.mkdir()
    workspace.source.symlink_to(checkpoint)
    workspace.base.symlink_to(base)
    spec = TransformSpec(action="convert", base_name="qwen--0123456789ab", max_shard_size_bytes=max_shard_bytes)
    result = convert.run(workspace, spec)
    workspace.out.rename(out)
    return result


def refused(checkpoint: Path, base: Path, out: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        run(checkpoint, base, out)
    return caught.value


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_checkpoint_becomes_an_adapter_that_engines_load(tmp_path: Path, base: Path, dtype: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", dtype=dtype)
    result = run(checkpoint, base, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    trained = read_header(checkpoint / "weights.safetensors")
    written = read_header(tmp_path / "out/adapter_model.safetensors")
    assert set(written) == {name.replace(".default", "") for name in trained}
    for name, tensor in trained.items():
        assert np.array_equal(read_float32(tensor), read_float32(written[name.replace(".default", "")]))
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "qwen--0123456789ab"
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["inference_mode"] is True
    assert (result.kind, result.lora) == ("adapter", read_adapter(tmp_path / "out").lora)


def test_the_adapter_must_fit_the_base(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    for i, shapes in enumerate(
        (
            {name: shape for name, shape in SHAPES.items() if "q_proj" not in name},
            {**SHAPES, "model.layers.0.self_attn.q_proj.weight": (8, 9)},
        )
    ):
        base = write_base(tmp_path / f"base-{i}", shapes=shapes)
        assert refused(checkpoint, base, tmp_path / f"out-{i}").reason == "ADAPTER_INVALID"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_exploded_are_refused(tmp_path: Path, base: Path, value: float) -> None:
    for checkpoint in (write_checkpoint(tmp_path / "lora"), write_full(tmp_path / "full")):
        path = checkpoint / "weights.safetensors"
        tensors = {name: ("F32", read_float32(tensor).copy()) for name, tensor in read_header(path).items()}
        name = next(iter(tensors))
        tensors[name][1].flat[0] = value
        write_safetensors(path, tensors)
        error = refused(checkpoint, base, tmp_path / f"out-{checkpoint.name}")
        assert error.reason == "NON_FINITE_WEIGHTS"
        assert name in str(error)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_full_fine_tune_takes_the_bases_types_and_order(tmp_path: Path, dtype: str) -> None:
    base, checkpoint = write_base(tmp_path / "base", dtype=dtype), write_full(tmp_path / "checkpoint")
    assert run(checkpoint, base, tmp_path / "out", max_shard_bytes=200).kind == "base"
    made, original = read_model(tmp_path / "out"), read_model(base)
    assert {name: (t.dtype, t.shape) for name, t in made.items()} == {
        n: (t.dtype, t.shape) for n, t in original.items()
    }
    for name, tensor in read_header(checkpoint / "weights.safetensors").items():
        wanted = to_float32(from_float32(read_float32(tensor), dtype), dtype).reshape(tensor.shape)
        assert np.array_equal(arrays(tmp_path / "out")[name], wanted)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= set(COMPANIONS) | {"model.safetensors.index.json"}


def test_a_full_checkpoint_must_fit_the_base(tmp_path: Path, base: Path) -> None:
    for i, shape in enumerate([(9,), (4,), (2, 4)]):
        checkpoint = write_full(tmp_path / f"other-{i}", {**SHAPES, "model.norm.weight": shape})
        assert refused(checkpoint, base, tmp_path / f"out-other-{i}").reason == "CHECKPOINT_INVALID"


def test_a_trained_weight_without_a_place_in_the_base_is_refused(tmp_path: Path, base: Path) -> None:
    """Copying the base's weights under other names would make an untrained model of it."""
    renamed = {name.replace("model.layers", "layers"): shape for name, shape in SHAPES.items()}
    error = refused(write_full(tmp_path / "renamed", renamed), base, tmp_path / "out")
    assert error.reason == "CHECKPOINT_INVALID"
    assert "layers.0." in str(error)


def test_targets_are_the_modules_that_were_trained(tmp_path: Path, base: Path) -> None:
    lora = run(write_checkpoint(tmp_path / "c"), base, tmp_path / "out").lora
    assert lora is not None
    assert lora.targets == tuple(sorted(module.rpartition(".")[2] for module in TARGETS))
