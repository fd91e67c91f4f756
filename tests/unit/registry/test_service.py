from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.conftest import GOOD_ROW, TEMPLATE, OpenRegistry, Registry, blob_parts, rows
from tuneloom.registry.v1 import builds_pb2, versions_pb2
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom_common.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    TuneloomError,
    Unauthenticated,
    Unavailable,
)
from tuneloom_common.grpc import translated
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest
from tuneloom_common.objects import MARKER
from tuneloom_common.paging import encode_token

LARGE = os.urandom(5_000_000)


async def refused(call: Any, error: type[TuneloomError]) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(error) as caught, translated("registry"):
        await call
    return caught.value


def staged(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "work/uploads").iterdir())


def blobs(tmp_path: Path) -> list[str]:
    files = [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    return [name for name in files if name != MARKER]


async def download(registry: Registry, sha256: str) -> bytes:
    with translated("registry"):
        parts = registry.stub.DownloadBlob(pb.DownloadBlobRequest(sha256=sha256))
        return b"".join([part.chunk async for part in parts])


# Blobs


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "tiny", "large"])
async def test_an_upload_comes_back_byte_for_byte(registry: Registry, tmp_path: Path, content: bytes) -> None:
    entry = await registry.upload(content, chunk=300_000)
    assert await download(registry, entry.sha256) == content
    assert staged(tmp_path) == []


async def test_uploading_again_writes_nothing(registry: Registry, tmp_path: Path) -> None:
    entry = await registry.upload(LARGE)
    blob = tmp_path / "objects/blobs/sha256" / entry.sha256
    before = blob.stat().st_mtime_ns
    assert (await registry.upload(LARGE)) == entry
    assert blob.stat().st_mtime_ns == before


async def test_the_same_upload_may_run_twice_at_once(registry: Registry, tmp_path: Path) -> None:
    entries = await asyncio.gather(*(registry.upload(LARGE) for _ in range(3)))
    assert blobs(tmp_path) == [entries[0].sha256]
    assert await download(registry, entries[0].sha256) == LARGE


async def test_an_upload_larger_than_the_limit_is_refused_before_it_is_sent(open_registry: OpenRegistry) -> None:
    registry = await open_registry(max_upload_bytes=4)
    error = await refused(registry.upload(b"hello"), InvalidArgument)
    assert error.field == "blob.size_bytes"
    assert "TUNELOOM_REGISTRY_MAX_UPLOAD_BYTES" in error.message


async def test_an_upload_that_stalls_is_ended(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(upload_idle_seconds=0.1)

    async def parts() -> Any:
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=hashlib.sha256(b"hello").hexdigest(), size_bytes=5))
        yield pb.UploadBlobRequest(chunk=b"he")
        await asyncio.Event().wait()

    error = await refused(registry.stub.UploadBlob(parts()), Unavailable)
    assert error.reason == "TIMEOUT"
    assert staged(tmp_path) == []


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


@pytest.mark.parametrize(
    ("announced", "size"),
    [(b"other", 5), (b"hello", 4), (b"hello", 6), (b"hello", 0), (b"hello", -1)],
    ids=["wrong-hash", "too-long", "too-short", "announced-empty", "negative"],
)
async def test_what_differs_from_the_announcement_is_refused(
    registry: Registry, tmp_path: Path, announced: bytes, size: int
) -> None:
    async def parts() -> Any:
        digest = hashlib.sha256(announced).hexdigest()
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=digest, size_bytes=size))
        for letter in b"hello":
            yield pb.UploadBlobRequest(chunk=bytes([letter]))

    error = await refused(registry.stub.UploadBlob(parts()), InvalidArgument)
    assert error.field == "blob"
    assert blobs(tmp_path) == staged(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
async def test_a_hash_that_is_none_reaches_no_path(registry: Registry, sha256: str) -> None:
    async def parts() -> Any:
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=sha256, size_bytes=1))

    assert (await refused(registry.stub.UploadBlob(parts()), InvalidArgument)).field == "blob.sha256"
    assert (await refused(download(registry, sha256), InvalidArgument)).field == "sha256"


async def test_an_upload_starts_with_its_announcement(registry: Registry) -> None:
    async def nothing() -> Any:
        return
        yield

    async def only_bytes() -> Any:
        yield pb.UploadBlobRequest(chunk=b"x")

    for parts in (nothing, only_bytes):
        assert (await refused(registry.stub.UploadBlob(parts()), InvalidArgument)).field == "blob.sha256"


async def test_a_cut_upload_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    sent = asyncio.Event()
    entry = FileEntry(path="a", size=len(LARGE), sha256=hashlib.sha256(LARGE).hexdigest())

    async def parts() -> Any:
        async for part in blob_parts(entry, LARGE[:2_000_000]):
            yield part
        sent.set()
        await asyncio.Event().wait()

    call = registry.stub.UploadBlob(parts())
    await asyncio.wait_for(sent.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        while staged(tmp_path):  # noqa: ASYNC110 - a directory has no event
            await asyncio.sleep(0.005)
    assert blobs(tmp_path) == []
    await registry.upload(LARGE)


async def test_a_missing_and_a_damaged_blob_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    await refused(download(registry, "0" * 64), NotFound)
    entry = await registry.upload(b"hello")
    next((tmp_path / "objects").rglob(entry.sha256)).write_bytes(b"jello")
    await refused(download(registry, entry.sha256), DataLoss)


# Collections


async def test_collections_are_created_listed_and_found(registry: Registry) -> None:
    for name in ("c", "a", "b"):
        await registry.stub.CreateModel(pb.CreateModelRequest(model_id=name))
        await registry.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=name))
    await registry.stub.CreateModel(pb.CreateModelRequest(model_id="job-1", training_job="trainingJobs/job-1"))
    first = await registry.stub.ListModels(pb.ListModelsRequest(page_size=2))
    second = await registry.stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=first.next_page_token))
    assert [model.name for model in (*first.models, *second.models)] == ["models/a", "models/b", "models/c"]
    assert second.next_page_token == ""
    everything = await registry.stub.ListModels(pb.ListModelsRequest(include_training_jobs=True))
    assert "models/job-1" in {model.name for model in everything.models}
    datasets = await registry.stub.ListDatasets(pb.ListDatasetsRequest())
    assert [dataset.name for dataset in datasets.datasets] == ["datasets/a", "datasets/b", "datasets/c"]
    assert (await registry.stub.GetModel(pb.GetModelRequest(name="models/a"))).latest_version == 0


async def test_validate_only_changes_nothing(registry: Registry) -> None:
    model = await registry.stub.CreateModel(pb.CreateModelRequest(model_id="a", validate_only=True))
    assert model.name == "models/a"
    await refused(registry.stub.GetModel(pb.GetModelRequest(name="models/a")), NotFound)


@pytest.mark.parametrize("bad", ["", "../x", "A", "a/b", "a--b", "模型", "x" * 5_000_000])
async def test_a_bad_id_is_refused_by_name(registry: Registry, bad: str) -> None:
    assert (await refused(registry.stub.CreateModel(pb.CreateModelRequest(model_id=bad)), InvalidArgument)).field == (
        "model_id"
    )
    await refused(registry.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=bad)), InvalidArgument)
    await refused(registry.stub.GetModel(pb.GetModelRequest(name=f"models/{bad}")), InvalidArgument)


async def test_a_name_and_a_request_id_are_used_once(registry: Registry) -> None:
    create = registry.stub.CreateModel
    made = await create(pb.CreateModelRequest(model_id="a", request_id="r"))
    assert await create(pb.CreateModelRequest(model_id="a", request_id="r")) == made
    await refused(create(pb.CreateModelRequest(model_id="a")), AlreadyExists)
    error = await refused(create(pb.CreateModelRequest(model_id="b", request_id="r")), InvalidArgument)
    assert error.field == "request_id"


@pytest.mark.parametrize("token", ["nonsense", "%", encode_token("x"), encode_token("9" * 40), encode_token("-1")])
async def test_a_tampered_page_token_is_the_callers_fault(registry: Registry, token: str) -> None:
    await registry.stub.CreateModel(pb.CreateModelRequest(model_id="a"))
    for call in (
        registry.stub.ListVersions(pb.ListVersionsRequest(parent="models/a", page_token=token)),
        registry.stub.ListBuilds(pb.ListBuildsRequest(page_token=token)),
    ):
        assert (await refused(call, InvalidArgument)).field == "page_token"


# Versions


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


async def test_versions_are_listed_in_pages(registry: Registry) -> None:
    for i in range(5):
        await registry.register_base(salt=f"{i}")
    seen, token = [], ""
    while True:
        page = await registry.stub.ListVersions(
            pb.ListVersionsRequest(parent="models/qwen", page_size=2, page_token=token)
        )
        seen += [version.name.rpartition("/")[2] for version in page.versions]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["5", "4", "3", "2", "1"]


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


# Aliases and watching


async def test_an_alias_moves_by_compare_and_set(registry: Registry) -> None:
    for salt in "ab":
        await registry.register_base(salt=salt)

    def move(version: int, **more: Any) -> Any:
        return registry.stub.SetAlias(pb.SetAliasRequest(name="models/qwen/aliases/default", version=version, **more))

    assert (await move(2, expected_version=1)).version == 2
    error = await refused(move(1, expected_version=1), Aborted)
    assert error.metadata == {"current_version": "2"}
    await refused(move(1, expected_version=0), Aborted)
    assert (await move(1)).version == 1
    for version in (0, -1, 3, 2**62):
        await refused(move(version), NotFound)
    for name in ("models/qwen/aliases/", "models/qwen", "datasets/qwen/aliases/x", "models/qwen/aliases/../x"):
        await refused(registry.stub.SetAlias(pb.SetAliasRequest(name=name, version=1)), InvalidArgument)


async def test_a_watcher_sees_changes_as_they_happen_and_continues_where_it_was(registry: Registry) -> None:
    await registry.register_base(salt="a")

    def watch(after: int) -> Any:
        return aiter(registry.stub.WatchModels(pb.WatchModelsRequest(after_sequence=after)))

    async def take(events: Any, count: int) -> list[Any]:
        return [await asyncio.wait_for(anext(events), 10) for _ in range(count)]

    from_start = watch(0)
    assert [(event.alias, event.version) for event in await take(from_start, 2)] == [("", 1), ("default", 1)]
    live_call = registry.stub.WatchModels(pb.WatchModelsRequest(after_sequence=-1))
    await asyncio.wait_for(live_call.initial_metadata(), 10)  # from here on nothing is missed
    await registry.register_base(salt="b")
    (seen,) = await take(aiter(live_call), 1)
    assert (seen.model, seen.alias, seen.version) == ("models/qwen", "", 2)
    await registry.stub.SetAlias(pb.SetAliasRequest(name="models/qwen/aliases/default", version=2))
    # A watcher that comes back gets what it missed, once.
    again = await take(watch(seen.sequence), 1)
    assert (again[0].alias, again[0].version) == ("default", 2)
    assert again[0].sequence > seen.sequence
    assert [event.sequence for event in await take(from_start, 2)] == [seen.sequence, again[0].sequence]


async def test_events_outlive_the_process(open_registry: OpenRegistry) -> None:
    first = await open_registry()
    await first.register_base()
    await first.app.server.stop(0)
    second = await open_registry()
    events = aiter(second.stub.WatchModels(pb.WatchModelsRequest(after_sequence=1)))
    assert (await asyncio.wait_for(anext(events), 10)).alias == "default"


# Access


async def test_the_token_is_needed(open_registry: OpenRegistry, tmp_path: Path) -> None:
    await open_registry(token="s3cret")
    stranger = await open_registry(token="s3cret", client_token="wrong")
    await refused(stranger.upload(b"x"), Unauthenticated)
    await refused(stranger.stub.CreateModel(pb.CreateModelRequest(model_id="a")), Unauthenticated)
    await refused(anext(aiter(stranger.stub.WatchModels(pb.WatchModelsRequest()))), Unauthenticated)
    assert blobs(tmp_path) == []
    friend = await open_registry(token="s3cret", client_token="s3cret")
    await friend.register_base()


# Requests for builds


async def test_a_build_is_queued_with_what_was_asked(registry: Registry) -> None:
    adapter = await registry.register_adapter("tuned", await registry.register_base())
    request = pb.CreateBuildRequest(
        build=builds_pb2.Build(
            merge=builds_pb2.MergeSpec(adapter=adapter.name, proof_prompts=["hi"]),
            target_model="models/tuned",
            target_aliases=["merged"],
        ),
        request_id="r",
    )
    build = await registry.stub.CreateBuild(request)
    assert build.state == builds_pb2.BUILD_STATE_QUEUED
    assert (build.merge.max_shard_size_bytes, build.merge.min_greedy_agreement) == (2_000_000_000, 0.99)
    assert await registry.stub.CreateBuild(request) == build
    assert await registry.stub.GetBuild(pb.GetBuildRequest(name=build.name)) == build
    assert list((await registry.stub.ListBuilds(pb.ListBuildsRequest())).builds) == [build]
    cancelled = await registry.stub.CancelBuild(pb.CancelBuildRequest(name=build.name))
    assert cancelled.state == builds_pb2.BUILD_STATE_CANCELLED
    nameless = registry.stub.CancelFencedBuilds(pb.CancelFencedBuildsRequest())
    assert (await refused(nameless, InvalidArgument)).field == "fence.scope"


async def test_a_build_that_cannot_work_is_refused_at_once(registry: Registry) -> None:
    base = await registry.register_base()
    adapter = await registry.register_adapter("tuned", base)
    merge, convert = builds_pb2.MergeSpec, builds_pb2.ConvertSpec
    nan = float("nan")
    for spec, error, field in (
        ({}, InvalidArgument, "build"),
        ({"merge": merge()}, InvalidArgument, "build.merge.adapter"),
        ({"merge": merge(adapter=base.name)}, InvalidArgument, "build.merge"),
        ({"convert": convert(checkpoint=adapter.name)}, InvalidArgument, "build.convert"),
        ({"merge": merge(adapter="models/tuned/versions/9")}, NotFound, ""),
        ({"merge": merge(adapter=adapter.name, max_shard_size_bytes=-1)}, InvalidArgument, "build.merge.max_shard"),
        ({"merge": merge(adapter=adapter.name, min_greedy_agreement=1.5)}, InvalidArgument, "build.merge.min_greedy"),
        ({"merge": merge(adapter=adapter.name, min_greedy_agreement=nan)}, InvalidArgument, "build.merge.min_greedy"),
        ({"merge": merge(adapter=adapter.name), "target_model": "models/none"}, NotFound, ""),
        ({"merge": merge(adapter=adapter.name), "target_model": "datasets/d"}, InvalidArgument, "build.target_model"),
        ({"merge": merge(adapter=adapter.name), "target_aliases": ["A"]}, InvalidArgument, "build.target_aliases"),
    ):
        request = pb.CreateBuildRequest(build=builds_pb2.Build(**{"target_model": "models/tuned", **spec}))
        told = await refused(registry.stub.CreateBuild(request), error)
        assert told.field.startswith(field), spec
    assert not (await registry.stub.ListBuilds(pb.ListBuildsRequest())).builds


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
