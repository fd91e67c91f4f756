from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.unit.registry.transforms.conftest import write_safetensors
from tuneloom_registry.weights.headers import TensorSlice, encode_header, read_header, read_model
from tuneloom_registry.weights.tensors import copy_bytes, from_float32, read_float32, row_blocks, to_float32


def bf16_of(bits32: int) -> int:
    """bfloat16 of a float32, slowly: the nearest of the two neighbours, on a tie the even one."""
    low, high = bits32 >> 16, (bits32 >> 16) + 1
    (value,) = struct.unpack("<f", struct.pack("<I", bits32))
    if value != value:
        raise AssertionError("NaN has no nearest")
    if abs(value) == float("inf"):
        return low

    def exact(bits: int) -> Fraction:
        magnitude = bits & 0x7FFF
        if magnitude == 0x7F80:  # where infinity begins: as if the exponent went on
            return Fraction(2) ** 128
        (number,) = struct.unpack("<f", struct.pack("<I", magnitude << 16))
        return Fraction(number)

    below, above = abs(Fraction(value)) - exact(low), exact(high) - abs(Fraction(value))
    if below == above:
        return low if low % 2 == 0 else high
    return low if below < above else high


def encode(bits32: int) -> int:
    return int.from_bytes(from_float32(np.array([bits32], np.uint32).view(np.float32), "BF16"), "little")


EDGES = [
    0x00000000, 0x80000000, 0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808000, 0xBF818000,
    0x00000001, 0x00008000, 0x00008001, 0x00018000, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000,
    0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x3FFFFFFF, 0x3FFF8000,
]  # fmt: skip


@pytest.mark.parametrize("bits", EDGES, ids=hex)
def test_bf16_rounds_to_nearest_even_at_the_edges(bits: int) -> None:
    assert encode(bits) == bf16_of(bits)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1).filter(lambda bits: bits & 0x7FFFFFFF <= 0x7F800000))
def test_bf16_rounds_to_nearest_even_everywhere(bits: int) -> None:
    assert encode(bits) == bf16_of(bits)


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000])
def test_nan_stays_nan(bits: int) -> None:
    encoded = encode(bits)
    assert encoded & 0x7F80 == 0x7F80
    assert encoded & 0x007F
    assert encoded >> 15 == bits >> 31


def test_every_bf16_value_survives_the_way_there_and_back() -> None:
    every = np.arange(1 << 16, dtype="<u2")
    back = np.frombuffer(from_float32(to_float32(every.tobytes(), "BF16"), "BF16"), "<u2")
    nan = (every & 0x7F80 == 0x7F80) & (every & 0x7F != 0)
    assert np.array_equal(back[~nan], every[~nan])
    assert np.array_equal(back[nan], every[nan] | 0x40)


def test_every_f16_value_survives_the_way_there_and_back() -> None:
    every = np.arange(1 << 16, dtype="<u2")
    back = np.frombuffer(from_float32(to_float32(every.tobytes(), "F16"), "F16"), "<u2")
    number = ~np.isnan(every.view("<f2"))
    assert np.array_equal(back[number], every[number])


def test_encoding_leaves_its_input_alone() -> None:
    values = np.linspace(-3, 3, 1001, dtype=np.float32).reshape(7, 143)
    before = values.copy()
    from_float32(values, "BF16")
    assert np.array_equal(values, before)
    assert from_float32(values[:, ::2], "BF16") == from_float32(values[:, ::2].copy(), "BF16")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 1, 1, 5)])
def test_a_file_gives_back_what_was_written(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": (dtype, values), "b": (dtype, values + 1)})
    header = read_header(path)
    assert list(header) == ["a", "b"]
    assert (header["a"].dtype, header["a"].shape) == (dtype, shape)
    assert np.array_equal(read_float32(header["b"]), values + 1)


def test_the_official_library_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    values = {"模": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3, dtype=np.float16)}
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    for name, tensor in read_header(tmp_path / "theirs.safetensors").items():
        assert np.array_equal(read_float32(tensor), values[name])
    write_safetensors(tmp_path / "ours.safetensors", {"模": ("F32", values["模"]), "b": ("F16", values["b"])})
    loaded = load_file(tmp_path / "ours.safetensors")
    assert all(np.array_equal(loaded[name], values[name]) for name in values)


def test_the_header_keeps_data_aligned(tmp_path: Path) -> None:
    for length in range(12):
        tensor = TensorSlice("n" * length, tmp_path, "F32", (1,), 0, 4)
        assert len(encode_header([tensor])) % 8 == 0


def write_raw(path: Path, header: Any, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: Any, end: Any, shape: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        "text",
        None,
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {**entry(0, 8, [2]), "data_offsets": [0]}},
        {"a": entry(0, 8, [3])},
        {"a": entry(0, 12, [3])},
        {"a": entry(-8, 0, [2])},
        {"a": entry(8, 0, [-2])},
        {"a": entry(0, 8, [-1, -2])},
        {"a": entry(0, 8, [2.0])},
        {"a": entry(0.0, 8, [2])},
        {"a": entry(0, 8, "2")},
        {"a": entry(0, 8, [2], "F33")},
        {"a": entry(0, 8, [2], None)},
        {"a": entry(0, 8, [2], ["F32"])},
        {"a": entry(0, 0, [0], "F33")},
        {"a": entry(0, 4, [1])},
        {"a": entry(4, 8, [1])},
        {"a": entry(0, 8, [2]), "b": entry(0, 8, [2])},
        {"a": entry(0, 8, [2]), "b": entry(4, 8, [1])},
        {"a": entry(0, 2**70, [2**68])},
    ],
    ids=lambda header: str(header)[:40],
)
def test_a_damaged_header_is_a_value_error(tmp_path: Path, header: Any) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        read_header(write_raw(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\0" * 8, b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}"])
def test_a_file_without_a_header_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read_header(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": ("F32", np.ones(3)), "b": ("BF16", np.ones(5))})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError):
            read_header(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError):
        read_header(path)


def test_a_sharded_model_is_read_by_its_index(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": ("F32", np.ones(3))})
    write_safetensors(tmp_path / "two.safetensors", {"b": ("F32", np.ones(3))})
    write_safetensors(tmp_path / "stray.safetensors", {"c": ("F32", np.ones(3))})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert set(read_model(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    "index",
    [
        {},
        [],
        {"weight_map": []},
        {"weight_map": {"a": "../x.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "missing.safetensors"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": None}},
        {"weight_map": {"a": 1, "b": "x"}},
        {"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}},
    ],
)
def test_a_broken_index_is_a_value_error(tmp_path: Path, index: Any) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": ("F32", np.ones(3))})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError):
        read_model(tmp_path)


def test_a_directory_without_weights_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        read_model(tmp_path)


@pytest.mark.parametrize("block_bytes", [1, 12, 13, 24, 10_000])
def test_blocks_cover_every_row_once(tmp_path: Path, block_bytes: int) -> None:
    values = np.arange(21, dtype=np.float32).reshape(7, 3)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"first": ("F32", np.ones(5)), "a": ("F32", values)})
    blocks = list(row_blocks(read_header(path)["a"], block_bytes=block_bytes))
    assert [first for first, _, _ in blocks] == [0, *(end for _, end, _ in blocks[:-1])]
    assert b"".join(data for _, _, data in blocks) == values.tobytes()
    assert max(end - first for first, end, _ in blocks) == max(1, min(7, block_bytes // 12))


def test_copied_bytes_follow_what_was_written_before(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": ("F32", np.arange(1000)), "b": ("BF16", np.arange(3))})
    header = read_header(path)
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before")
        copy_bytes(header["a"], out)
        out.write(b"between")
        copy_bytes(header["b"], out)
    data = path.read_bytes()
    expected = io.BytesIO()
    expected.write(b"before" + data[header["a"].start :][: header["a"].size])
    expected.write(b"between" + data[header["b"].start :][: header["b"].size])
    assert (tmp_path / "out").read_bytes() == expected.getvalue()


def test_a_source_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": ("F32", np.arange(1000))})
    tensor = read_header(path)["a"]
    path.write_bytes(path.read_bytes()[:100])
    with (tmp_path / "out").open("wb") as out, pytest.raises(ValueError, match="became shorter"):
        copy_bytes(tensor, out)
