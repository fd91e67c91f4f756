from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.manifests import FileEntry, Manifest, canonical_json

SHA = "ab" * 32


def raw(**more: Any) -> dict[str, Any]:
    """A manifest as a client may write it."""
    return {"kind": "adapter", "files": [{"path": "a", "size": 1, "sha256": SHA}], **more}


def parse(value: Any) -> Manifest:
    return Manifest.parse(json.dumps(value))


def with_paths(*paths: str) -> dict[str, Any]:
    return raw(files=[{"path": path, "size": 1, "sha256": SHA} for path in paths])


PROOF = {
    "prompts": 8,
    "positions": 9,
    "greedy_agreement": 1.0,
    "max_logit_diff": 0.5,
    "mean_kl": 0.0,
    "adapter_effect": 1.5,
    "dtype": "float32",
}


def test_identity_does_not_depend_on_spelling() -> None:
    full = raw(
        base={"model": "qwen", "digest": SHA},
        lora={"r": 16, "alpha": 32, "targets": ["q_proj", "v_proj"]},
        lineage={"job": "job-1", "seed": 7},
        proof=PROOF,
    )
    full["files"].append({"path": "子/b", "size": 2, "sha256": "cd" * 32})
    shuffled = {key: full[key] for key in reversed(full)}
    shuffled["files"] = [dict(reversed(file.items())) for file in reversed(full["files"])]
    shuffled["lora"] = {**full["lora"], "alpha": 32.0}
    spaced = Manifest.parse(json.dumps(shuffled, indent=3, ensure_ascii=True))
    assert spaced.canonical() == parse(full).canonical()
    assert spaced.digest == parse(full).digest == hashlib.sha256(spaced.canonical()).hexdigest()


def test_canonical_json_is_what_the_contract_says() -> None:
    """A digest must never change between releases: this one is written down."""
    manifest = parse(raw(lora={"r": 8, "alpha": 16, "targets": ["q_proj"]}, quantization=None))
    assert manifest.canonical().decode() == (
        '{"files":[{"path":"a","sha256":"' + SHA + '","size":1}],"kind":"adapter",'
        '"lora":{"alpha":16.0,"r":8,"rslora":false,"targets":["q_proj"]},"schema_version":1}'
    )
    assert manifest.digest == "40555472ad0366284f894e4599f84ac29e572b604688986c1f0e3e03435f3839"


def test_reading_back_the_canonical_form_changes_nothing() -> None:
    manifest = parse(raw(proof=PROOF, lineage={"datasets": [SHA], "step": 3}))
    assert Manifest.parse(manifest.canonical()) == manifest
    assert Manifest.parse(manifest.canonical()).digest == manifest.digest


def test_different_content_has_different_identity() -> None:
    seen = {
        parse(value).digest
        for value in (
            raw(),
            raw(kind="merged"),
            raw(quantization="nf4"),
            raw(lora={"r": 8, "alpha": 16, "targets": ["q"]}),
            raw(lora={"r": 8, "alpha": 16, "targets": ["q"], "rslora": True}),
            with_paths("b"),
            with_paths("a", "b"),
        )
    }
    assert len(seen) == 7


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "x" * 256,
    ],
)
def test_paths_stay_inside_and_have_one_spelling(path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(with_paths(path))
    assert caught.value.field == "files.0.path"


@pytest.mark.parametrize("path", ["a", "a/b/c.safetensors", "..a", "a..b", "...", "数据.jsonl", "x" * 255])
def test_plain_relative_paths_are_kept(path: str) -> None:
    assert parse(with_paths(path)).files[0].path == path


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b"), ("x", "a/b", "a/b/c/d")])
def test_two_files_never_share_a_place(paths: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(with_paths(*paths))
    assert caught.value.field == "files"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["alpha", "mean_kl"])
def test_numbers_are_finite(number: str, place: str) -> None:
    text = json.dumps(raw(lora={"r": 8, "alpha": 1, "targets": []}, proof=PROOF))
    text = text.replace('"alpha": 1', f'"alpha": {number}' if place == "alpha" else '"alpha": 1')
    text = text.replace('"mean_kl": 0.0', f'"mean_kl": {number}' if place == "mean_kl" else '"mean_kl": 0.0')
    with pytest.raises(InvalidArgument) as caught:
        Manifest.parse(text)
    assert caught.value.field.endswith(place)


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError):
        canonical_json({"x": float("nan")})


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (raw(kind="pickle"), "kind"),
        (raw(schema_version=2), "schema_version"),
        (raw(files=[]), "files"),
        (raw(files=[{"path": "a", "size": -1, "sha256": SHA}]), "files.0.size"),
        (raw(files=[{"path": "a", "size": 1, "sha256": "AB" * 32}]), "files.0.sha256"),
        (raw(files=[{"path": "a", "size": 1}]), "files.0.sha256"),
        (raw(unknown=1, schema_version="one"), "schema_version"),
        (raw(base={"model": "qwen", "digest": "../../etc"}), "base.digest"),
        (raw(base={"model": "qwen"}), "base.digest"),
        ([], "manifest_json"),
        (None, "manifest_json"),
    ],
)
def test_the_field_at_fault_is_named(value: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(value)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "{", "\ud800", b"\xff\xfe", "[" * 100_000, '{"kind":' * 5_000])
def test_garbage_is_an_invalid_argument(text: str | bytes) -> None:
    with pytest.raises(InvalidArgument):
        Manifest.parse(text)


@settings(max_examples=50, deadline=None)
@given(st.permutations([FileEntry(path=f"f{i}", size=i, sha256=f"{i:064x}") for i in range(5)]))
def test_file_order_never_matters(files: list[FileEntry]) -> None:
    manifest = Manifest(kind="base", files=tuple(files))
    assert [file.path for file in manifest.files] == [f"f{i}" for i in range(5)]
    assert manifest.size_bytes == 10
