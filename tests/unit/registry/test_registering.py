"""What becomes a version, and what is refused by name."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.calls import refused, staged
from tests.unit.registry.conftest import GOOD_ROW, TEMPLATE, OpenRegistry, Registry, rows
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2
from tuneloom_common.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest


async def test_a_dataset_is_checked_apart_and_within_limits(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """A file that would need more memory than a check may have costs its uploader an error and nobody else anything."""
    registry = await open_registry(check_memory_bytes=96 << 20, max_row_bytes=64 << 20, check_seconds=30)
    deep = b'{"messages": [' + b'{"role": "user", "content": "hi"},' * 1_500_000 + b'{"role": "assistant"}]}'
    checking = asyncio.create_task(
        refused(registry.register("datasets/a", "dataset", {"a.jsonl": deep}), InvalidArgument)
    )
    while not checking.done():
        await registry.stub.ListModels(pb.ListModelsRequest())
        await asyncio.sleep(0.02)
    error = checking.result()
    assert error.reason == "DATA_CONTRACT"
    assert "memory" in error.message
    assert staged(tmp_path) == []


async def test_a_dataset_larger_than_is_checked_is_refused_by_name(open_registry: OpenRegistry) -> None:
    registry = await open_registry(max_dataset_bytes=10)
    error = await refused(registry.register("datasets/a", "dataset", {"a.jsonl": rows(GOOD_ROW)}), InvalidArgument)
    assert "a.jsonl: " in error.message
    assert "TUNELOOM_REGISTRY_MAX_DATASET_BYTES" in error.message


async def test_a_base_is_registered_resolved_and_read_back(registry: Registry) -> None:
    made = await registry.register_base()
    assert made.kind == versions_pb2.ARTIFACT_KIND_BASE
    assert hashlib.sha256(made.manifest_json.encode()).hexdigest() == made.digest
    assert (made.engine_name, made.size_bytes) == (f"qwen--{made.digest[:12]}", 9)
    assert list(made.aliases) == ["default"]
    for reference in ("qwen", "qwen@default", "qwen:1", f"qwen@sha256:{made.digest}", made.engine_name, made.name):
        assert await registry.stub.ResolveVersion(pb.ResolveVersionRequest(reference=reference)) == made
    assert await registry.stub.GetVersion(pb.GetVersionRequest(name=made.name)) == made
    assert await registry.app.objects.read_manifest(made.digest) == Manifest.parse(made.manifest_json)


async def test_registering_again_gives_the_same_version(registry: Registry) -> None:
    made = await registry.register_base()
    assert await registry.register_base() == made
    listed = await registry.stub.ListVersions(pb.ListVersionsRequest(parent="models/qwen"))
    assert list(listed.versions) == [made]


async def test_validating_a_version_registers_nothing(registry: Registry) -> None:
    made = await registry.register_base()
    manifest = Manifest.parse(made.manifest_json).model_copy(update={"quantization": "nf4"})
    checked = await registry.create("models/qwen", manifest, validate_only=True)
    assert checked.digest == manifest.digest
    with pytest.raises(NotFound):
        await registry.app.objects.read_manifest(manifest.digest)


async def test_blobs_come_before_the_manifest(registry: Registry) -> None:
    made = await registry.register_base()
    manifest = Manifest.parse(made.manifest_json)
    missing = FileEntry(path="LICENSE", size=1, sha256="0" * 64)
    error = await refused(
        registry.create("models/qwen", manifest.model_copy(update={"files": (*manifest.files, missing)})), NotFound
    )
    assert "LICENSE" in error.message
    assert (await registry.stub.GetModel(pb.GetModelRequest(name="models/qwen"))).latest_version == 1


async def test_bad_rows_are_named_and_nothing_is_registered(registry: Registry, tmp_path: Path) -> None:
    bad = rows(GOOD_ROW, {"messages": []}, GOOD_ROW, {"conversations": []}) + b"{broken\n"
    error = await refused(registry.register("datasets/faq", "dataset", {"data.jsonl": bad}), InvalidArgument)
    assert (error.reason, error.field) == ("DATA_CONTRACT", "manifest_json")
    assert "3 of 5 rows" in error.message
    for row in (2, 4, 5):
        assert f"row {row}" in error.message
    assert (await registry.stub.GetDataset(pb.GetDatasetRequest(name="datasets/faq"))).latest_version == 0
    assert not list((tmp_path / "objects").glob("manifests/*"))
    assert staged(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x00\xff\xfe", b"[]", b"null"])
async def test_a_file_without_rows_is_no_dataset(registry: Registry, content: bytes) -> None:
    error = await refused(registry.register("datasets/faq", "dataset", {"data.jsonl": content}), InvalidArgument)
    assert error.reason == "DATA_CONTRACT"


async def test_a_good_dataset_is_registered(registry: Registry) -> None:
    made = await registry.register("datasets/faq", "dataset", {"data.jsonl": rows(GOOD_ROW)})
    assert made.name == "datasets/faq/versions/1"
    resolved = await registry.stub.ResolveVersion(pb.ResolveVersionRequest(reference="datasets/faq"))
    assert resolved == made


@pytest.mark.parametrize(
    "path",
    [
        "pytorch_model.bin",
        "modeling.py",
        "x.PT",
        "deep/er/x.pth",
        "x.pkl",
        "x.pickle",
        "x.npz",
        "x.so",
        "x.ckpt",
        "x.pyc",
    ],
)
async def test_files_that_can_carry_code_are_refused(registry: Registry, path: str) -> None:
    contents = {"config.json": b"{}", "model.safetensors": b"w", path: b"import os"}
    error = await refused(registry.register("models/a", "base", contents, template=TEMPLATE), InvalidArgument)
    assert (error.reason, error.field) == ("UNSAFE_FILE", "files")
    assert path in error.message


async def test_a_merged_model_cannot_be_claimed_from_outside(registry: Registry) -> None:
    contents = {"config.json": b"{}", "model.safetensors": b"w"}
    error = await refused(registry.register("models/a", "merged", contents), FailedPrecondition)
    assert error.reason == "PROOF_REQUIRED"


async def test_each_kind_needs_its_parts(registry: Registry) -> None:
    weights = {"config.json": b"{}", "model.safetensors": b"w"}
    for kind, contents, parts, field in (
        ("base", weights, {}, "template"),
        ("base", {"config.json": b"{}"}, {"template": TEMPLATE}, "files"),
        ("base", {"model.safetensors": b"w"}, {"template": TEMPLATE}, "files"),
        ("adapter", weights, {}, "base"),
        ("checkpoint", weights, {}, "base"),
    ):
        error = await refused(registry.register("models/a", kind, contents, **parts), InvalidArgument)
        assert error.field == field, (kind, field)


async def test_a_kind_lives_in_its_collection(registry: Registry) -> None:
    base = {"config.json": b"{}", "model.safetensors": b"w"}
    for parent, kind, contents, parts in (
        ("datasets/a", "base", base, {"template": TEMPLATE}),
        ("models/a", "dataset", {"data.jsonl": rows(GOOD_ROW)}, {}),
    ):
        assert (await refused(registry.register(parent, kind, contents, **parts), InvalidArgument)).field == "parent"


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"kind":"base","files":[],"files":[]}', "[" * 100_000])
async def test_a_broken_manifest_is_the_callers_fault(registry: Registry, text: str) -> None:
    await registry.stub.CreateModel(pb.CreateModelRequest(model_id="a"))
    request = pb.CreateVersionRequest(parent="models/a", manifest_json=text)
    await refused(registry.stub.CreateVersion(request), InvalidArgument)


async def test_a_path_out_of_the_artifact_is_refused(registry: Registry, tmp_path: Path) -> None:
    await registry.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id="a"))
    entry = await registry.upload(rows(GOOD_ROW))
    for path in ("../../../escaped.jsonl", "/tmp/escaped.jsonl", "a/../../escaped.jsonl"):
        text = json.dumps({"kind": "dataset", "files": [{**entry.model_dump(), "path": path}]})
        request = pb.CreateVersionRequest(parent="datasets/a", manifest_json=text)
        assert (await refused(registry.stub.CreateVersion(request), InvalidArgument)).field == "files.0.path"
    assert not list(tmp_path.rglob("escaped*"))


async def test_aliases_are_set_with_the_version_and_checked_before(registry: Registry) -> None:
    base = Manifest.parse((await registry.register_base()).manifest_json)
    changed = base.model_copy(update={"quantization": "nf4"})
    assert (
        await refused(registry.create("models/qwen", changed, aliases=["../x"]), InvalidArgument)
    ).field == "aliases"
    made = await registry.create("models/qwen", changed, aliases=["canary", "default"])
    assert sorted(made.aliases) == ["canary", "default"]


async def test_a_writer_that_lost_its_lease_registers_nothing(registry: Registry) -> None:
    base = Manifest.parse((await registry.register_base()).manifest_json)

    def fenced(epoch: int, salt: str) -> Any:
        manifest = base.model_copy(update={"quantization": salt})
        return registry.create("models/qwen", manifest, fence={"scope": "trainingJobs/j", "epoch": epoch})

    assert (await fenced(2, "a")).name.endswith("/2")
    assert (await refused(fenced(1, "b"), FailedPrecondition)).reason == "LEASE_LOST"


async def test_an_adapter_of_a_base_with_a_forged_digest_is_refused(registry: Registry) -> None:
    await registry.stub.CreateModel(pb.CreateModelRequest(model_id="a"))
    text = json.dumps(
        {
            "kind": "adapter",
            "files": [(await registry.upload(b"x")).model_dump()],
            "base": {"model": "qwen", "digest": "../../x"},
        }
    )
    error = await refused(
        registry.stub.CreateVersion(pb.CreateVersionRequest(parent="models/a", manifest_json=text)), InvalidArgument
    )
    assert error.field == "base.digest"
    with pytest.raises(ValueError):
        BaseRef(model="qwen", digest="../../x")


@pytest.mark.parametrize(
    ("scope", "epoch", "field"),
    [
        ("jobs/" + "j" * 128, 1, "fence.scope"),
        ("a\0b", 1, "fence.scope"),
        ("j", 0, "fence.epoch"),
        ("j", 2**31, "fence.epoch"),
    ],
)
async def test_a_fence_that_is_none_is_refused_by_name(registry: Registry, scope: str, epoch: int, field: str) -> None:
    request = pb.CancelFencedBuildsRequest(fence={"scope": scope, "epoch": epoch})
    assert (await refused(registry.stub.CancelFencedBuilds(request), InvalidArgument)).field == field


async def test_who_only_uploads_names_no_fence(open_registry: OpenRegistry) -> None:
    """Else anybody who may upload could end every job's publishing, for good."""
    entries = [
        {"id": who, "token_sha256": hashlib.sha256(who.encode()).hexdigest(), "scopes": scopes}
        for who, scopes in {
            "uploader": ["registry:read", "registry:write"],
            "trainer": ["registry:read", "registry:write", "registry:fence"],
        }.items()
    ]
    request = pb.CancelFencedBuildsRequest(fence={"scope": "trainingJobs/j", "epoch": 9})
    uploader = await open_registry(principals=entries, client_token="uploader")
    base = Manifest.parse((await uploader.register_base()).manifest_json)
    await refused(uploader.stub.CancelFencedBuilds(request), PermissionDenied)
    await refused(uploader.create("models/qwen", base, fence={"scope": "trainingJobs/j", "epoch": 9}), PermissionDenied)
    trainer = await open_registry(principals=entries, client_token="trainer")
    await trainer.stub.CancelFencedBuilds(request)
