"""The gRPC face of the registry: names, listings, aliases, watches, builds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.calls import blobs, refused
from tests.unit.registry.conftest import OpenRegistry, Registry
from tuneloom.registry.v1 import builds_pb2
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom_common.errors import (
    Aborted,
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Unauthenticated,
)
from tuneloom_common.paging import encode_token


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


async def test_the_token_is_needed(open_registry: OpenRegistry, tmp_path: Path) -> None:
    await open_registry(token="s3cret")
    stranger = await open_registry(token="s3cret", client_token="wrong")
    await refused(stranger.upload(b"x"), Unauthenticated)
    await refused(stranger.stub.CreateModel(pb.CreateModelRequest(model_id="a")), Unauthenticated)
    await refused(anext(aiter(stranger.stub.WatchModels(pb.WatchModelsRequest()))), Unauthenticated)
    assert blobs(tmp_path) == []
    friend = await open_registry(token="s3cret", client_token="s3cret")
    await friend.register_base()


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
