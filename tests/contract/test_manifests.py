"""A manifest keeps its bytes: what was stored is read by every later release, and a newer one's is not damaged here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.conftest import RELEASES
from tuneloom_common import manifests
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.manifests import Lineage, Manifest, canonical_json

STORED = [path for release in RELEASES for path in sorted((release / "manifests").glob("*.json"))]
PARTS = ("base", "template", "lora", "lineage", "proof")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KNOWN = {name for part in (Manifest, *manifests._Part.__subclasses__()) for name in part.model_fields}
UNKNOWN = st.dictionaries(st.text().filter(lambda key: key not in KNOWN), VALUES, max_size=3)


def merged() -> dict[str, Any]:
    """A stored merged manifest, which has every part."""
    [path] = [path for path in STORED if path.name.startswith("merged-") and path.parts[-3] == "0.1.0"]
    stored: dict[str, Any] = json.loads(path.read_bytes())
    return stored


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parts[-3]}-{path.name[:16]}")
def test_a_stored_manifest_keeps_its_bytes_and_digest(path: Path) -> None:
    data = path.read_bytes()
    manifest = Manifest.parse(data)
    assert manifest.canonical() == data
    assert f"{manifest.kind}-{manifest.digest}" == path.stem
    assert manifest.digest == hashlib.sha256(data).hexdigest()


def test_manifests_of_every_kind_were_stored() -> None:
    assert {path.name.partition("-")[0] for path in STORED} == {"dataset", "base", "adapter", "merged", "checkpoint"}
    assert set(PARTS) <= merged().keys()


@pytest.mark.parametrize("place", ["", *PARTS, "files.0"])
@pytest.mark.parametrize("value", [1, 0.5, None, "text", [1, None], {"a": {"b": None}}, True])
@pytest.mark.parametrize("name", ["zeta", "alias", "canonical", "model_dump", "size_bytes"])
def test_a_field_of_a_newer_release_is_kept(place: str, value: Any, name: str) -> None:
    stored = merged()
    target: Any = stored
    for step in place.split(".") if place else ():
        target = target[int(step) if step.isdigit() else step]
    target[name] = value
    data = canonical_json(stored)
    manifest = Manifest.parse(data)
    assert manifest.canonical() == data
    assert manifest.digest == hashlib.sha256(data).hexdigest()
    assert Manifest.parse(manifest.canonical()) == manifest


@settings(max_examples=200, deadline=None)
@given(st.tuples(UNKNOWN, UNKNOWN, UNKNOWN))
def test_whatever_a_newer_release_adds_comes_back(unknown: tuple[dict[str, Any], ...]) -> None:
    stored = merged()
    top, proof, file = unknown
    data = canonical_json(
        {**top, **stored, "proof": {**proof, **stored["proof"]}, "files": [{**file, **stored["files"][0]}]}
    )
    assert Manifest.parse(data).canonical() == data


def test_a_part_that_is_changed_keeps_what_is_unknown_in_it() -> None:
    stored = merged()
    stored["lineage"]["cluster"] = "north"
    lineage = Manifest.parse(canonical_json(stored)).lineage
    assert lineage is not None
    moved = lineage.model_copy(update={"parent": "ab" * 32})
    assert moved.model_dump()["cluster"] == "north"
    assert Lineage.model_validate(moved.model_dump()) == moved


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "[" * 5000 + "]" * 5000, "9" * 5000])
def test_an_unknown_value_without_a_canonical_form_is_refused(text: str) -> None:
    data = canonical_json(merged()).replace(b'"proof":{', b'"proof":{"newer":' + text.encode() + b",")
    with pytest.raises(InvalidArgument, match="manifest"):
        Manifest.parse(data)


def test_a_newer_schema_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"up to version 1 .* has 2; .* upgrade") as caught:
        Manifest.parse(canonical_json({**merged(), "schema_version": 2, "files": "elsewhere"}))
    assert caught.value.field == "schema_version"


def test_a_known_field_of_a_wrong_type_is_still_named() -> None:
    stored = merged()
    stored["proof"]["positions"] = "many"
    with pytest.raises(InvalidArgument) as caught:
        Manifest.parse(canonical_json(stored))
    assert caught.value.field == "proof.positions"


def test_a_field_that_is_added_is_left_out_where_it_is_absent() -> None:
    """Another default than None is written into what an earlier release stored, whose digest would change."""
    defaults = {
        f"{part.__name__}.{name}"
        for part in (Manifest, *manifests._Part.__subclasses__())
        for name, field in part.model_fields.items()
        if not field.is_required() and field.default is not None
    }
    assert defaults == {"Manifest.schema_version", "Lora.rslora", "Lineage.datasets"}
