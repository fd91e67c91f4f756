from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.unit.registry.conftest import TEMPLATE, Registry
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, FileEntry, Lora, Manifest
from tuneloom_registry.admission import check_base, check_contents

REFERENCE = BaseRef(model="qwen", digest="1" * 64)
FILES = tuple(
    FileEntry(path=path, size=1, sha256="0" * 64) for path in ("adapter_config.json", "adapter_model.safetensors")
)
GOOD: dict[str, Any] = {
    "kind": Kind.ADAPTER,
    "files": FILES,
    "base": REFERENCE,
    "lora": Lora(r=4, alpha=8, targets=("q_proj",)),
}


def test_a_good_adapter_passes() -> None:
    check_contents(Manifest(**GOOD))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base": BaseRef(model="../etc", digest="1" * 64)}, "base.model"),
        ({"base": BaseRef(model="a b", digest="1" * 64)}, "base.model"),
        ({"base": BaseRef(model="", digest="1" * 64)}, "base.model"),
        ({"base": BaseRef(model="x" * 1000, digest="1" * 64)}, "base.model"),
        ({"kind": Kind.CHECKPOINT, "base": BaseRef(model="a--b/c", digest="1" * 64)}, "base.model"),
        ({"files": FILES[:1]}, "files"),
        ({"files": FILES[1:]}, "files"),
        ({"files": (FileEntry(path="adapter_config.json", size=9 << 20, sha256="0" * 64), FILES[1])}, "files"),
        ({"files": (*FILES, FileEntry(path="model.safetensors.index.json", size=17 << 20, sha256="0" * 64))}, "files"),
        ({"lora": Lora(r=0, alpha=8, targets=("q_proj",))}, "lora"),
        ({"lora": Lora(r=4, alpha=8, targets=())}, "lora"),
    ],
    ids=str,
)
def test_nonsense_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_contents(Manifest(**{**GOOD, **change}))
    assert caught.value.field == field


def test_a_base_has_full_weights() -> None:
    full = Manifest(kind=Kind.BASE, files=FILES, template=TEMPLATE)
    check_base(REFERENCE, full)
    check_base(REFERENCE, Manifest(kind=Kind.MERGED, files=FILES, base=REFERENCE))
    with pytest.raises(NotFound, match="models/qwen has no version"):
        check_base(REFERENCE, None)
    with pytest.raises(FailedPrecondition, match="is of kind adapter"):
        check_base(REFERENCE, Manifest(**GOOD))


async def test_an_adapter_of_nonsense_is_not_registered(registry: Registry) -> None:
    """One such version made every listing of models fail at the gateway, and versions cannot be deleted."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.register(
            "models/tuned",
            "adapter",
            {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"},
            base=BaseRef(model="../../no such model", digest="0" * 64),
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "base.model" in str(caught.value.details())
