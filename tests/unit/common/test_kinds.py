from __future__ import annotations

import json

import pytest

from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest


@pytest.mark.parametrize(
    ("kind", "servable", "trainable", "full_weights"),
    [
        ("dataset", False, False, False),
        ("base", True, True, True),
        ("adapter", True, False, False),
        ("merged", True, True, True),
        ("checkpoint", False, False, False),
    ],
)
def test_what_each_kind_is_good_for(kind: str, servable: bool, trainable: bool, full_weights: bool) -> None:
    one = Kind(kind)
    assert (one.servable, one.trainable, one.full_weights) == (servable, trainable, full_weights)


def test_a_manifest_spells_its_kind_as_before() -> None:
    manifest = Manifest(kind=Kind.BASE, files=(FileEntry(path="a", size=1, sha256="0" * 64),))
    assert json.loads(manifest.canonical())["kind"] == "base"
    assert Manifest.parse(manifest.canonical()).kind is Kind.BASE
