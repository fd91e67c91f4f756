"""Against a real registry for the contract, against a scripted one for failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.conftest import Clock, ServeScripted
from tuneloom.registry.v1 import builds_pb2, versions_pb2
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from tuneloom_client.builds import BuildState, ConvertSpec, Fence, MergeSpec
from tuneloom_client.registry import RegistryClient
from tuneloom_common.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    TuneloomError,
    Unauthenticated,
    Unavailable,
)
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest, Template

TEMPLATE = Template(tokenizer_sha256="1" * 64, chat_template_sha256="2" * 64, stop_tokens=("</s>",))
Connect = Callable[..., RegistryClient]


async def publish_base(registry: RegistryClient, tmp_path: Path, name: str = "seed", salt: str = "") -> Any:
    await registry.ensure_model(f"models/{name}")
    (tmp_path / "config.json").write_text("{}" + salt)
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 300_000)
    entries = [await registry.upload(tmp_path / file) for file in ("config.json", "model.safetensors")]
    return await registry.register(
        f"models/{name}", Manifest(kind=Kind.BASE, files=tuple(entries), template=TEMPLATE), aliases=["canary"]
    )


async def test_a_model_goes_in_and_comes_back(registry: RegistryClient, tmp_path: Path) -> None:
    made = await publish_base(registry, tmp_path)
    assert (str(made.name), made.kind, made.size_bytes) == ("models/seed/versions/1", Kind.BASE, 2_100_002)
    found = await registry.resolve("seed")
    assert found == made
    assert found.manifest.template == TEMPLATE
    assert found.engine_name == f"seed--{made.digest[:12]}"
    assert set(found.aliases) == {"canary", "default"}
    assert await registry.resolve(found.engine_name) == found
    [model] = await registry.models()
    assert (model.id, model.latest_version, model.aliases) == ("seed", 1, {"canary": 1, "default": 1})
    assert await registry.model("models/seed") == model
    assert [version.name for version in await registry.versions("models/seed")] == [made.name]


async def test_an_upload_tells_how_far_it_is_and_names_a_missing_file(registry: RegistryClient, tmp_path: Path) -> None:
    file = tmp_path / "big.safetensors"
    file.write_bytes(b"x" * 2_500_000)
    sent: list[int] = []
    entry = await registry.upload(file, name="model.safetensors", on_bytes=sent.append)
    assert (entry.path, entry.size) == ("model.safetensors", 2_500_000)
    assert sent == [1 << 20, 2 << 20, 2_500_000]
    assert await registry.upload(file, name="model.safetensors") == entry
    with pytest.raises(NotFound, match=r"gone\.jsonl does not exist"):
        await registry.upload(tmp_path / "gone.jsonl")


async def test_what_is_there_is_not_created_twice(registry: RegistryClient) -> None:
    for _ in range(2):
        await registry.ensure_dataset("datasets/faq")
        await registry.ensure_model("models/job-1", training_job="trainingJobs/job-1")
    assert [dataset.id for dataset in await registry.datasets()] == ["faq"]
    assert await registry.models() == []
    assert [model.training_job for model in await registry.models(include_training_jobs=True)] == ["trainingJobs/job-1"]


async def test_an_alias_moves_only_from_where_it_was(registry: RegistryClient, tmp_path: Path) -> None:
    await publish_base(registry, tmp_path)
    second = await publish_base(registry, tmp_path, salt=" ")
    moved = await registry.set_alias("models/seed", "default", 2, expected=1)
    assert (str(moved.name), moved.version) == ("models/seed/aliases/default", 2)
    assert (await registry.resolve("seed")).name == second.name
    with pytest.raises(Aborted, match="points to version 2"):
        await registry.set_alias("models/seed", "default", 1, expected=1)
    await registry.set_alias("models/seed", "default", 1)


async def test_changes_are_heard_from_the_moment_watching_began(registry: RegistryClient, tmp_path: Path) -> None:
    await publish_base(registry, tmp_path)
    events = await registry.watch(-1)
    await publish_base(registry, tmp_path, salt=" ")
    await registry.set_alias("models/seed", "default", 2)
    heard = [await anext(events) for _ in range(3)]
    assert [(event.model, event.alias, event.version) for event in heard] == [
        ("models/seed", "", 2),
        ("models/seed", "canary", 2),
        ("models/seed", "default", 2),
    ]
    await events.aclose()  # type: ignore[attr-defined]


async def test_a_build_is_asked_for_once(registry: RegistryClient, tmp_path: Path) -> None:
    base = await publish_base(registry, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = tuple([await registry.upload(tmp_path / name) for name in names])
    manifest = Manifest(kind=Kind.ADAPTER, files=files, base=BaseRef(model="seed", digest=base.digest))
    await registry.ensure_model("models/tuned")
    adapter = await registry.register("models/tuned", manifest, fence=Fence("trainingJobs/job-1", 1))
    spec = MergeSpec(str(adapter.name), max_shard_size_bytes=5, proof_prompts=("hi",))
    build = await registry.create_build(spec, target_model="models/tuned", aliases=["merged"], request_id="r1")
    again = await registry.create_build(spec, target_model="models/tuned", aliases=["merged"], request_id="r1")
    assert again == build
    assert (build.action, build.source, build.target_aliases) == ("merge", str(adapter.name), ("merged",))
    assert (build.state, build.end_time) == (BuildState.QUEUED, None)
    assert await registry.builds() == [build]
    assert await registry.cancel_fenced_builds(Fence("trainingJobs/job-2", 1)) == []
    stopped = await registry.cancel_build(build.name)
    assert await registry.ended(stopped, poll_seconds=0) == stopped
    with pytest.raises(InvalidArgument) as caught:
        await registry.create_build(ConvertSpec(str(adapter.name)), target_model="models/tuned")
    assert caught.value.field == "build.convert"


async def test_an_old_lease_registers_nothing(registry: RegistryClient, tmp_path: Path) -> None:
    base = await publish_base(registry, tmp_path)
    await registry.register("models/seed", base.manifest, fence=Fence("trainingJobs/job-1", 2))
    with pytest.raises(FailedPrecondition) as caught:
        await registry.register("models/seed", base.manifest, fence=Fence("trainingJobs/job-1", 1))
    assert caught.value.reason == "LEASE_LOST"


class Scripted(RegistryServiceServicer):
    """Answers from a script: errors are raised, the last entry is repeated."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls = 0

    def _next(self) -> Any:
        self.calls += 1
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ResolveVersion(self, request: Any, context: Any) -> versions_pb2.Version:
        return self._next()

    async def SetAlias(self, request: Any, context: Any) -> versions_pb2.Alias:
        return self._next()

    async def GetBuild(self, request: Any, context: Any) -> builds_pb2.Build:
        return self._next()

    async def UploadBlob(self, request_iterator: Any, context: Any) -> versions_pb2.Blob:
        async for _ in request_iterator:
            pass
        return self._next()

    async def WatchModels(self, request: Any, context: Any) -> AsyncIterator[pb.ModelEvent]:
        yield self._next()


def version(**changes: Any) -> versions_pb2.Version:
    manifest = Manifest(kind=Kind.BASE, files=(FileEntry(path="a", size=1, sha256="0" * 64),))
    fields = {
        "name": "models/a/versions/1",
        "digest": manifest.digest,
        "kind": versions_pb2.ARTIFACT_KIND_BASE,
        "manifest_json": manifest.canonical().decode(),
    }
    return versions_pb2.Version(**{**fields, **changes})


async def test_reading_survives_a_moment_of_absence(serve: ServeScripted, registry_at: Connect) -> None:
    service = Scripted(Unavailable("restarting"), Unavailable("restarting"), version())
    assert (await registry_at(await serve(service)).resolve("a")).manifest.kind is Kind.BASE
    assert service.calls == 3


async def test_moving_an_alias_is_never_sent_twice(serve: ServeScripted, registry_at: Connect) -> None:
    service = Scripted(Unavailable("restarting"))
    with pytest.raises(Unavailable):
        await registry_at(await serve(service)).set_alias("models/a", "default", 1)
    assert service.calls == 1


async def test_an_upload_is_sent_again(serve: ServeScripted, registry_at: Connect, tmp_path: Path) -> None:
    service = Scripted(Unavailable("restarting"), versions_pb2.Blob())
    (tmp_path / "file").write_bytes(b"abc")
    assert (await registry_at(await serve(service)).upload(tmp_path / "file")).size == 3
    assert service.calls == 2


async def test_nobody_there_is_said_at_once(registry_at: Connect) -> None:
    with pytest.raises(Unavailable, match=r"the registry does not answer.*tuneloom up"):
        await registry_at("127.0.0.1:1").resolve("a")
    with pytest.raises(Unavailable, match="the registry does not answer"):
        await registry_at("127.0.0.1:1").watch(-1)


async def test_a_call_has_a_deadline(serve: ServeScripted, registry_at: Connect) -> None:
    class Silent(RegistryServiceServicer):
        async def ResolveVersion(self, request: Any, context: Any) -> Any:
            await asyncio.Event().wait()

        async def WatchModels(self, request: Any, context: Any) -> AsyncIterator[pb.ModelEvent]:
            await asyncio.Event().wait()
            yield pb.ModelEvent()

    client = registry_at(await serve(Silent()), timeout_seconds=0.05)
    with pytest.raises(Unavailable) as caught:
        await client.resolve("a")
    assert caught.value.reason == "TIMEOUT"
    with pytest.raises(Unavailable) as caught:
        await client.watch(-1)
    assert caught.value.reason == "TIMEOUT"


async def test_a_services_own_token_is_not_its_callers_fault(serve: ServeScripted, registry_at: Connect) -> None:
    address = await serve(Scripted(version()), token="right")
    client = registry_at(address, token="wrong", token_setting="TUNELOOM_GATEWAY_REGISTRY_TOKEN")
    with pytest.raises(Unavailable, match="TUNELOOM_GATEWAY_REGISTRY_TOKEN") as caught:
        await client.resolve("a")
    assert caught.value.reason == "REGISTRY_REFUSED"
    with pytest.raises(Unauthenticated):
        await registry_at(address, token="wrong").resolve("a")


@pytest.mark.parametrize(("setting", "kind"), [("TUNELOOM_X_TOKEN", Unavailable), ("", TuneloomError)])
async def test_a_registry_that_fails_inside_is_not_the_callers_fault(
    serve: ServeScripted, registry_at: Connect, setting: str, kind: type[TuneloomError]
) -> None:
    client = registry_at(await serve(Scripted(ZeroDivisionError("secret"))), token_setting=setting)
    with pytest.raises(TuneloomError) as caught:
        await client.resolve("a")
    assert type(caught.value) is kind
    assert "secret" not in caught.value.message


async def test_a_name_is_the_callers_fault(serve: ServeScripted, registry_at: Connect) -> None:
    client = registry_at(await serve(Scripted(NotFound("nothing is called 'a'"))), token_setting="TUNELOOM_X_TOKEN")
    with pytest.raises(NotFound, match="nothing is called"):
        await client.resolve("a")


@pytest.mark.parametrize("damage", [{"name": "../../etc"}, {"digest": "x"}, {"name": "models/a/versions/01"}])
async def test_damaged_names_go_no_further(serve: ServeScripted, registry_at: Connect, damage: dict[str, str]) -> None:
    with pytest.raises(DataLoss, match="damaged"):
        await registry_at(await serve(Scripted(version(**damage)))).resolve("a")


async def test_a_manifest_is_checked_when_it_is_read(serve: ServeScripted, registry_at: Connect) -> None:
    found = await registry_at(await serve(Scripted(version(manifest_json="{}")))).resolve("a")
    with pytest.raises(DataLoss, match="models/a/versions/1"):
        _ = found.manifest


async def test_a_kind_of_tomorrow_is_none(serve: ServeScripted, registry_at: Connect) -> None:
    assert (await registry_at(await serve(Scripted(version(kind=99)))).resolve("a")).kind is None


async def test_a_build_is_followed_over_a_restart(serve: ServeScripted, registry_at: Connect, clock: Clock) -> None:
    running = builds_pb2.Build(name="builds/b", state=builds_pb2.BUILD_STATE_RUNNING, progress="half")
    done = builds_pb2.Build(
        name="builds/b", state=builds_pb2.BUILD_STATE_SUCCEEDED, result_version="models/a/versions/2"
    )
    client = registry_at(await serve(Scripted(running, running, done)))
    seen: list[str] = []
    ended = await client.ended(
        await client.build("builds/b"), on_change=lambda build: seen.append(build.progress), sleep=clock.sleep
    )
    assert (ended.state, ended.result_version, seen) == (BuildState.SUCCEEDED, "models/a/versions/2", ["half", ""])
