"""Real children under a real registry: from a registered checkpoint to a registered result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.conftest import TEMPLATE, Registry
from tests.unit.registry.test_runner import building, outcome
from tests.unit.registry.transforms.conftest import write_base
from tests.unit.registry.transforms.test_convert import write_checkpoint, write_full
from tuneloom_common.manifests import BaseRef
from tuneloom_registry.builds import Build, BuildSpec, BuildState


async def queue_conversion(registry: Registry, base: Path, checkpoint: Path) -> Build:
    contents = {path.name: path.read_bytes() for path in base.iterdir()}
    stored = await registry.register("models/qwen", "base", contents, template=TEMPLATE)
    source = await registry.register(
        "models/job-1",
        "checkpoint",
        {path.name: path.read_bytes() for path in checkpoint.iterdir()},
        base=BaseRef(model="qwen", digest=stored.digest),
    )
    await registry.app.versions.create_collection("models/out", request_id="out")
    return await registry.app.builds.create(
        BuildSpec(action="convert", source=source.name), target_model="models/out", target_aliases=[], fence=None
    )


@pytest.mark.parametrize(("write", "kind"), [(write_checkpoint, "adapter"), (write_full, "base")])
async def test_a_conversion_does_not_mind_damaged_weights_of_its_base(
    registry: Registry, tmp_path: Path, write: Any, kind: str
) -> None:
    """They are not read: not when the base was trained in full either."""
    base = write_base(tmp_path / "base")
    build = await queue_conversion(registry, base, write(tmp_path / "checkpoint"))
    weights = (base / "model.safetensors").read_bytes()
    blob = tmp_path / "objects/blobs/sha256" / hashlib.sha256(weights).hexdigest()
    blob.write_bytes(weights[:-50] + bytes(50))
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.error) == (BuildState.SUCCEEDED, "")
    [made] = await registry.app.versions.list_versions("models/out", before=0, limit=1)
    assert made.manifest.kind == kind
    assert made.manifest.template == TEMPLATE


async def test_a_checkpoint_that_cannot_be_converted_says_why(registry: Registry, tmp_path: Path) -> None:
    base, checkpoint = write_base(tmp_path / "base"), write_full(tmp_path / "checkpoint", {"other.weight": (3,)})
    build = await queue_conversion(registry, base, checkpoint)
    async with building(registry):
        done = await outcome(registry, build)
    assert done.state == BuildState.FAILED
    assert "other.weight" in done.error
    assert done.lease_epoch == 1
