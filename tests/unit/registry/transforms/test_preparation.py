"""What a child is given: of a base no more bytes than the action needs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.registry.transforms.conftest import TARGETS, write_base, write_safetensors
from tests.unit.registry.transforms.test_convert import write_checkpoint, write_full
from tuneloom_common.errors import InvalidArgument, Unavailable
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_registry.transforms.outcomes import Done, read_outcome
from tuneloom_registry.transforms.preparation import FIRST_BYTES, prepare
from tuneloom_registry.transforms.specs import TransformSpec, read_spec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.headers import TensorSlice, encode_header, read_model

CONVERT = TransformSpec(action="convert", base_name="qwen--0123456789ab")
MERGE = CONVERT.model_copy(update={"action": "merge"})
LARGE = 2 << 30


class CountingStore(ObjectStore):
    """Counts the bytes that are read of every blob; a materialized file is read whole, to verify it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read: dict[str, int] = {}

    async def read_range(self, sha256: str, start: int, end: int) -> bytes:
        data = await super().read_range(sha256, start, end)
        self.read[sha256] = self.read.get(sha256, 0) + len(data)
        return data

    async def materialize(self, files: Iterable[FileEntry], directory: Path) -> Path:
        for file in files:
            self.read[file.sha256] = self.read.get(file.sha256, 0) + file.size
        return await super().materialize(files, directory)

    def read_of(self, manifest: Manifest) -> int:
        return sum(self.read.get(file.sha256, 0) for file in manifest.files)


@pytest.fixture
async def objects(tmp_path: Path) -> CountingStore:
    return await CountingStore(f"file://{tmp_path}/objects").create()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


async def store(objects: ObjectStore, directory: Path, kind: str) -> Manifest:
    base = None if kind == "base" else BaseRef(model="qwen", digest="0" * 64)
    return Manifest(kind=Kind(kind), files=await objects.put_directory(directory), base=base)


def store_hollow(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> Manifest:
    """A base in the object store whose weights are a hole under a hash that is not theirs."""
    name = tmp_path / "model.safetensors"
    tensors = [TensorSlice(key, name, "BF16", shape, 0, 2 * int(np.prod(shape))) for key, shape in shapes.items()]
    header = encode_header(tensors)
    size = len(header) + sum(tensor.size for tensor in tensors)
    sha256 = hashlib.sha256(b"a hash of other bytes").hexdigest()
    blob = tmp_path / "objects/blobs/sha256" / sha256
    blob.parent.mkdir(parents=True, exist_ok=True)
    with blob.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return Manifest(kind=Kind.BASE, files=(FileEntry(path="model.safetensors", size=size, sha256=sha256),))


def child(workspace: Workspace) -> int:
    command = [sys.executable, "-m", "tuneloom_registry.transforms", str(workspace.directory)]
    return subprocess.run(command, check=False).returncode


async def test_a_conversion_reads_no_weight_of_its_base(
    objects: CountingStore, workspace: Workspace, tmp_path: Path
) -> None:
    shapes = {f"{module}.weight": shape for module, shape in TARGETS.items()}
    base = store_hollow(tmp_path, {"model.embed_tokens.weight": (LARGE // 2048, 1024), **shapes})
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
    assert base.size_bytes > LARGE
    assert objects.read_of(base) <= FIRST_BYTES
    assert sum(file.stat().st_blocks * 512 for file in workspace.headers.iterdir()) < 1 << 20
    outcome = read_outcome(workspace.directory, child(workspace))
    assert isinstance(outcome, Done), outcome
    assert outcome.result.kind == "adapter"


async def test_the_optimizer_is_not_fetched(objects: CountingStore, workspace: Workspace, tmp_path: Path) -> None:
    base = await store(objects, write_base(tmp_path / "base"), "base")
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
    assert sorted(path.name for path in workspace.source.iterdir()) == ["adapter_config.json", "weights.safetensors"]
    assert list(workspace.base.iterdir()) == []


async def test_a_merge_has_everything(objects: CountingStore, workspace: Workspace, tmp_path: Path) -> None:
    base = await store(objects, write_base(tmp_path / "base"), "base")
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    await prepare(workspace, MERGE, source=source, base=base, objects=objects)
    assert {path.name for path in workspace.base.iterdir()} == {file.path for file in base.files}
    assert {path.name for path in workspace.source.iterdir()} == {file.path for file in source.files}


async def test_a_long_header_takes_a_second_read(objects: CountingStore, workspace: Workspace, tmp_path: Path) -> None:
    shapes = {f"{module}.weight": shape for module, shape in TARGETS.items()}
    many = {f"model.layers.{i}.input_layernorm.weight": (8,) for i in range(1000)}
    base = store_hollow(tmp_path, {**shapes, **many})
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
    assert FIRST_BYTES < objects.read_of(base) < base.size_bytes
    assert len(read_model(workspace.base, headers=workspace.headers)) == 1002


async def test_a_full_fine_tune_reads_only_the_shard_of_a_buffer(
    objects: CountingStore, workspace: Workspace, tmp_path: Path
) -> None:
    directory = tmp_path / "base"
    trained = {"a.weight": (64, 8), "b.weight": (8, 8)}
    directory.mkdir()
    write_safetensors(directory / "one.safetensors", {"a.weight": ("BF16", np.ones((64, 8)))})
    write_safetensors(
        directory / "two.safetensors", {"b.weight": ("BF16", np.ones((8, 8))), "b.inv_freq": ("F32", np.arange(4.0))}
    )
    weight_map = {"a.weight": "one.safetensors", "b.weight": "two.safetensors", "b.inv_freq": "two.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text("{}")
    base = await store(objects, directory, "base")
    source = await store(objects, write_full(tmp_path / "checkpoint", trained), "checkpoint")
    await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
    assert sorted(path.name for path in workspace.base.iterdir()) == [
        "config.json", "model.safetensors.index.json", "two.safetensors",
    ]  # fmt: skip
    assert isinstance(read_outcome(workspace.directory, child(workspace)), Done)
    assert {path.name for path in workspace.out.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"\xff" * 100, (17 << 20).to_bytes(8, "little") + b"{}"],
    ids=["empty", "short", "no header", "cut short"],
)
async def test_a_base_that_is_not_safetensors_is_an_argument(
    objects: CountingStore, workspace: Workspace, tmp_path: Path, content: bytes
) -> None:
    write_base(tmp_path / "base")
    (tmp_path / "base/model.safetensors").write_bytes(content)
    base = await store(objects, tmp_path / "base", "base")
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    with pytest.raises(InvalidArgument, match=r"model\.safetensors"):
        await prepare(workspace, CONVERT, source=source, base=base, objects=objects)


async def test_a_damaged_header_is_an_argument_before_the_child_starts(
    objects: CountingStore, workspace: Workspace, tmp_path: Path
) -> None:
    base = await store(objects, write_base(tmp_path / "base"), "base")
    full = write_full(tmp_path / "checkpoint")
    (full / "weights.safetensors").write_bytes(b"nonsense")
    source = await store(objects, full, "checkpoint")
    with pytest.raises(InvalidArgument, match=r"weights\.safetensors"):
        await prepare(workspace, CONVERT, source=source, base=base, objects=objects)


async def test_limits_are_set_from_the_inputs(objects: CountingStore, workspace: Workspace, tmp_path: Path) -> None:
    base = await store(objects, write_base(tmp_path / "base"), "base")
    source = await store(objects, write_checkpoint(tmp_path / "checkpoint"), "checkpoint")
    await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
    limit = read_spec(workspace.spec).memory_limit_bytes
    assert limit is not None
    assert 1 << 32 < limit < 1 << 33


def test_the_services_side_needs_no_numpy() -> None:
    code = (
        "import tuneloom_registry.transforms.preparation, tuneloom_registry.transforms.outcomes, sys;"
        "assert not {'numpy', 'safetensors', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_hostile_header_is_refused_by_a_child(
    objects: CountingStore, workspace: Workspace, tmp_path: Path
) -> None:
    """Headers of a base are parsed in a child, whatever they hold; the service only moves bytes."""
    write_base(tmp_path / "base")
    path = tmp_path / "base/model.safetensors"
    nested = b"[" * (8 << 20)
    path.write_bytes(len(nested).to_bytes(8, "little") + nested)
    base = await store(objects, tmp_path / "base", "base")
    source = await store(objects, write_full(tmp_path / "checkpoint"), "checkpoint")
    with pytest.raises(InvalidArgument, match="its header is damaged"):
        await prepare(workspace, CONVERT, source=source, base=base, objects=objects)


async def test_a_lost_child_can_be_asked_again(objects: CountingStore, workspace: Workspace, tmp_path: Path) -> None:
    base = await store(objects, write_base(tmp_path / "base"), "base")
    source = await store(objects, write_full(tmp_path / "checkpoint"), "checkpoint")
    workspace.directory.mkdir()
    workspace.needs.with_name("needs.json.part").mkdir()  # so that it cannot answer
    with pytest.raises(Unavailable, match="status 1"):
        await prepare(workspace, CONVERT, source=source, base=base, objects=objects)
