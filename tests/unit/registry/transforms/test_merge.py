from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.registry.transforms.conftest import (
    COMPANIONS,
    SHAPES,
    TARGETS,
    arrays,
    write_adapter,
    write_base,
    write_config,
    write_safetensors,
)
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms.merge import BLOCK_BYTES, merge
from tuneloom_registry.weights.headers import read_header, read_model
from tuneloom_registry.weights.tensors import from_float32, read_float32, to_float32

UNLIMITED = 1 << 40


def expected(base: Path, adapter: Path, dtype: str, scale: float = 2.0) -> dict[str, Any]:
    """W + scale * B @ A in float64, rounded once, from whole tensors."""
    lora = {
        name: read_float32(t).astype(np.float64)
        for name, t in read_header(adapter / "adapter_model.safetensors").items()
    }
    merged = arrays(base)
    for module in TARGETS:
        a, b = (lora[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        exact = merged[f"{module}.weight"].astype(np.float64) + scale * (b @ a)
        rounded = to_float32(from_float32(exact.astype(np.float32), dtype), dtype)
        merged[f"{module}.weight"] = rounded.reshape(exact.shape)
    return merged


def raw(directory: Path) -> dict[str, bytes]:
    return {
        name: tensor.file.read_bytes()[tensor.start : tensor.start + tensor.size]
        for name, tensor in read_model(directory).items()
    }


def refused(base: Path, adapter: Path, out: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        merge(base, adapter, out, max_shard_bytes=UNLIMITED)
    return caught.value


@pytest.mark.parametrize("adapter_dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_sum_is_rounded_once_to_the_bases_type(tmp_path: Path, dtype: str, adapter_dtype: str) -> None:
    base = write_base(tmp_path / "base", dtype=dtype)
    adapter = write_adapter(tmp_path / "adapter", dtype=adapter_dtype)
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
    wanted, got = expected(base, adapter, dtype), arrays(tmp_path / "out")
    assert {tensor.dtype for tensor in read_model(tmp_path / "out").values()} == {dtype}
    for name in SHAPES:
        # The float32 product may differ from the exact one in its last bit, and so cross a rounding boundary.
        step = {"F32": 2**-22, "F16": 2**-10, "BF16": 2**-7}[dtype]
        np.testing.assert_allclose(got[name], wanted[name], rtol=step, atol=1e-7)
        assert (got[name] == wanted[name]).mean() > (0.9 if dtype != "F32" else 0.5)
    for module in TARGETS:
        assert not np.array_equal(got[f"{module}.weight"], arrays(base)[f"{module}.weight"])


def test_blocks_make_no_difference(tmp_path: Path) -> None:
    """Larger than several blocks, with a last block that is not full."""
    rows, columns = 3 * BLOCK_BYTES // 2 // 512 + 5, 512
    module = "model.layers.0.mlp.up_proj"
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    write_base(base, shapes={f"{module}.weight": (rows, columns), "model.norm.weight": (8,)})
    generator = np.random.default_rng(3)
    a, b = generator.standard_normal((4, columns)), generator.standard_normal((rows, 4))
    adapter.mkdir()
    write_config(adapter)
    prefix = f"base_model.model.{module}"
    write_safetensors(
        adapter / "adapter_model.safetensors",
        {f"{prefix}.lora_A.weight": ("F32", a), f"{prefix}.lora_B.weight": ("F32", b)},
    )
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
    whole = arrays(base)[f"{module}.weight"] + np.float32(2) * (b.astype(np.float32) @ a.astype(np.float32))
    wanted = to_float32(from_float32(whole, "BF16"), "BF16").reshape(rows, columns)
    got = arrays(tmp_path / "out")[f"{module}.weight"]
    np.testing.assert_allclose(got, wanted, rtol=2**-7, atol=1e-5)
    assert (got == wanted).mean() > 0.99


def test_what_the_adapter_leaves_alone_is_copied_bit_by_bit(tmp_path: Path, base: Path, adapter: Path) -> None:
    path = base / "model.safetensors"
    header = read_header(path)
    data = bytearray(path.read_bytes())
    norm = header["model.norm.weight"]
    data[norm.start : norm.start + 8] = bytes.fromhex("7fff ffff 0100 807f".replace(" ", ""))  # NaN payloads too
    path.write_bytes(data)
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
    before, after = raw(base), raw(tmp_path / "out")
    assert list(before) == list(after)
    for name in SHAPES:
        assert (before[name] == after[name]) == (name.removesuffix(".weight") not in TARGETS), name


def test_tokenizer_and_configuration_travel_unchanged(tmp_path: Path, base: Path, adapter: Path) -> None:
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert files.pop("model.safetensors")
    assert files == COMPANIONS


@pytest.mark.parametrize("limit", [1, 100, 200, 300, 400, 545, 546, 10_000])
def test_shards_respect_the_limit_and_the_index_finds_everything(
    tmp_path: Path, base: Path, adapter: Path, limit: int
) -> None:
    out = tmp_path / "out"
    merge(base, adapter, out, max_shard_bytes=limit)
    merge(base, adapter, tmp_path / "whole", max_shard_bytes=UNLIMITED)
    assert raw(out) == raw(tmp_path / "whole")
    shards = sorted(out.glob("*.safetensors"))
    for shard in shards:
        sizes = [tensor.size for tensor in read_header(shard).values()]
        assert sum(sizes) <= limit or len(sizes) == 1
    index = out / "model.safetensors.index.json"
    total = sum(len(data) for data in raw(base).values())
    if limit >= total:
        assert [shard.name for shard in shards] == ["model.safetensors"]
        assert not index.exists()
        return
    count = len(shards)
    assert [shard.name for shard in shards] == [
        f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
    ]
    told = json.loads(index.read_text())
    assert told["metadata"]["total_size"] == total
    assert told["weight_map"] == {name: shard.name for shard in shards for name in read_header(shard)}


def test_a_sharded_base_is_merged_into_one_file_and_back(tmp_path: Path, base: Path, adapter: Path) -> None:
    zero = write_adapter(tmp_path / "zero", scale=0.0)
    merge(base, zero, tmp_path / "sharded", max_shard_bytes=200)
    assert raw(tmp_path / "sharded") == raw(base)
    merge(tmp_path / "sharded", adapter, tmp_path / "one", max_shard_bytes=UNLIMITED)
    merge(base, adapter, tmp_path / "direct", max_shard_bytes=UNLIMITED)
    assert raw(tmp_path / "one") == raw(tmp_path / "direct")
    assert not (tmp_path / "one/model.safetensors.index.json").exists()


def test_progress_counts_every_tensor(tmp_path: Path, base: Path, adapter: Path) -> None:
    seen: list[tuple[int, int]] = []
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED, on_progress=lambda *now: seen.append(now))
    assert seen == [(i, len(SHAPES)) for i in range(1, len(SHAPES) + 1)]


def test_inputs_are_never_written(tmp_path: Path, base: Path, adapter: Path) -> None:
    """They are hard links to stored blobs."""
    files = [*base.iterdir(), *adapter.iterdir()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
    assert not any(path.samefile(tmp_path / "out" / path.name) for path in base.iterdir())


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, adapter: Path) -> None:
    missing = {name: shape for name, shape in SHAPES.items() if "down_proj" not in name}
    error = refused(write_base(tmp_path / "missing", shapes=missing), adapter, tmp_path / "out")
    assert error.reason == "BASE_MISMATCH"
    assert "down_proj" in str(error)
    other = {**SHAPES, "model.layers.0.mlp.down_proj.weight": (8, 13)}
    assert refused(write_base(tmp_path / "other", shapes=other), adapter, tmp_path / "out").reason == "BASE_MISMATCH"
    assert not (tmp_path / "out").exists()


def test_a_quantized_base_is_refused(tmp_path: Path, adapter: Path) -> None:
    from safetensors.numpy import save_file

    base = tmp_path / "base"
    base.mkdir()
    save_file({name: np.ones(shape, np.uint8) for name, shape in SHAPES.items()}, base / "model.safetensors")
    assert refused(base, adapter, tmp_path / "out").reason == "BASE_QUANTIZED"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["A", "B"])
def test_an_adapter_with_nan_or_infinity_is_refused(tmp_path: Path, base: Path, side: str, value: float) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    tensors = {name: ("F32", read_float32(tensor).copy()) for name, tensor in read_header(path).items()}
    tensors[f"base_model.model.{next(iter(TARGETS))}.lora_{side}.weight"][1][1, 2] = value
    write_safetensors(path, tensors)
    assert refused(base, adapter, tmp_path / "out").reason == "NON_FINITE_WEIGHTS"


def test_a_merge_that_leaves_the_range_of_the_type_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype="F16")
    adapter = write_adapter(tmp_path / "adapter", scale=300.0)
    with pytest.raises(ValueError, match="too large for F16"):
        merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)


def test_the_output_must_be_new(tmp_path: Path, base: Path, adapter: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        merge(base, adapter, tmp_path / "out", max_shard_bytes=UNLIMITED)
