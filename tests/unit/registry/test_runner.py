from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.conftest import OpenRegistry, Registry, until
from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_common.grpc import translated
from tuneloom_common.manifests import BaseRef, Manifest
from tuneloom_registry.builds import Build, BuildSpec, BuildState
from tuneloom_registry.store import VersionStore

# What a fake build process does in the build directory `d`, with `spec` from build.json.
PREAMBLE = """
import json, os, signal, sys, time
from pathlib import Path
d = Path(sys.argv[1])
spec = json.loads((d / "build.json").read_text())
def result(**what): (d / "result.json").write_text(json.dumps(what))
def out():
    (d / "out").mkdir()
    (d / "out/adapter_model.safetensors").write_bytes((d / "source/adapter_model.safetensors").read_bytes() + b"!")
"""
GOOD = """
out()
result(ok=True, kind="adapter", lora={"r": 8, "alpha": 16, "targets": ["q_proj"], "rslora": False}, proof=None)
"""
WAIT = '(d / "progress").write_text("under way"); signal.pause()'


def command(body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PREAMBLE + body)


@asynccontextmanager
async def building(registry: Registry) -> Any:
    """The runner's loop, which must still run at the end."""
    loop = asyncio.create_task(registry.app.runner.run())
    yield
    assert not loop.done(), loop
    loop.cancel()
    await asyncio.wait({loop})


async def queue(registry: Registry, source: str = "", **more: Any) -> Build:
    if not source:
        source = (await registry.register_adapter("tuned", await registry.register_base())).name
    await registry.app.versions.create_collection("models/out", request_id="out")
    return await registry.app.builds.create(
        BuildSpec(action="merge", source=source, proof_prompts=("hi",), **more),
        target_model="models/out",
        target_aliases=["merged"],
        fence=None,
    )


async def back_in_the_queue(registry: Registry, build: Build) -> bool:
    now = await registry.app.builds.get(build.id)
    return (now.state, now.lease_epoch) == (BuildState.QUEUED, 1)


async def outcome(registry: Registry, build: Build) -> Build:
    async def ended() -> bool:
        return (await registry.app.builds.get(build.id)).state.final

    await until(ended)
    return await registry.app.builds.get(build.id)


async def cleaned(tmp_path: Path, *, but: str | None = None) -> None:
    """Waits until no build directory is left; a build ends before its directory is gone."""

    async def clean() -> bool:
        return [path.name for path in (tmp_path / "work/builds").iterdir()] == ([but] if but else [])

    await until(clean)


async def test_a_result_is_stored_and_registered_with_its_origin(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.error, done.result_version) == (BuildState.SUCCEEDED, "", "models/out/versions/1")
    source = (await registry.app.versions.get_collection("models/tuned")).aliases
    assert source == {"default": 1}
    assert (await registry.app.versions.get_collection("models/out")).aliases == {"default": 1, "merged": 1}
    made = await registry.stub.ResolveVersion(_reference("out"))
    manifest = Manifest.parse(made.manifest_json)
    adapter = await registry.stub.ResolveVersion(_reference("tuned"))
    base = await registry.stub.ResolveVersion(_reference("qwen"))
    assert manifest.base == BaseRef(model="qwen", digest=base.digest)
    assert manifest.lineage is not None
    assert manifest.lineage.parent == adapter.digest
    assert manifest.lora is not None
    assert manifest.template == Manifest.parse(base.manifest_json).template
    stored = await registry.app.objects.materialize(manifest.files, tmp_path / "fetched")
    assert (stored / "adapter_model.safetensors").read_bytes() == b"weights!"
    await cleaned(tmp_path)


def _reference(text: str) -> Any:
    from tuneloom.registry.v1 import registry_pb2

    return registry_pb2.ResolveVersionRequest(reference=text)


async def test_the_build_process_is_told_what_to_do(open_registry: OpenRegistry, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    keep = f"Path({str(told)!r}).write_text(json.dumps([spec, sorted(map(str, d.rglob('*')))]))"
    registry = await open_registry(build_command=command(keep + GOOD), build_timeout_seconds=77)
    build = await queue(registry, max_shard_size_bytes=77, min_greedy_agreement=0.5)
    async with building(registry):
        await outcome(registry, build)
    spec, files = json.loads(told.read_text())
    base = await registry.stub.ResolveVersion(_reference("qwen"))
    assert spec == {
        "action": "merge",
        "base_name": base.engine_name,
        "max_shard_size_bytes": 77,
        "proof_prompts": ["hi"],
        "min_greedy_agreement": 0.5,
        "proof_dtype": "float32",
        "time_limit_seconds": 77.0,
        "memory_limit_bytes": spec["memory_limit_bytes"],
    }
    assert spec["memory_limit_bytes"] > 1 << 30
    inside = {path.rpartition("-1/")[2] for path in files}
    assert {"base/config.json", "base/model.safetensors", "source/adapter_config.json"} <= inside


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('the last words', file=sys.stderr); sys.exit(3)", ["status 3", "the last words"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", ["status -9"]),
        ("pass", ["status 0"]),
        ("out(); (d / 'result.json.part').write_text('{')", ["status 0"]),
        ("result(ok=False, reason='BASE_MISMATCH', error='the base has no weight x')", ["the base has no weight x"]),
        ("(d / 'result.json').write_text('nonsense')", ["no usable result"]),
        ("result(fine=True)", ["no usable result"]),
        ("out(); result(ok=True, kind='nonsense', lora=None, proof=None)", ["no usable result"]),
        ("out(); result(ok=True, kind='adapter', lora={'r': 'x'}, proof=None)", ["no usable result"]),
        ("result(ok=True, kind='adapter', lora=None, proof=None)", ["no usable result"]),
        ("(d / 'progress').write_bytes(bytes([255, 254]) * 1000); sys.exit(3)", ["status 3"]),
    ],
    ids=[
        "crash", "killed", "no-result", "half-result", "refused", "garbage", "keys", "kind", "lora", "no-files",
        "progress",
    ],
)  # fmt: skip
async def test_a_build_that_fails_says_why_and_ends_nothing_else(
    open_registry: OpenRegistry, tmp_path: Path, body: str, told: list[str]
) -> None:
    registry = await open_registry(build_command=command(body), build_max_attempts=1)
    build = await queue(registry)
    async with building(registry):
        done = await outcome(registry, build)
    assert done.state == BuildState.FAILED
    for part in told:
        assert part in done.error
    assert (await registry.app.versions.get_collection("models/out")).latest_version == 0
    await cleaned(tmp_path)


async def test_a_child_that_is_killed_is_started_again(open_registry: OpenRegistry, tmp_path: Path) -> None:
    dies_twice = f"""
tries = Path({str(tmp_path)!r}) / "tries"
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < 3: os.kill(os.getpid(), signal.SIGKILL)
"""
    registry = await open_registry(build_command=command(dies_twice + GOOD))
    build = await queue(registry)
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.lease_epoch, done.error) == (BuildState.SUCCEEDED, 3, "")


async def test_an_object_store_that_is_away_is_waited_for(open_registry: OpenRegistry) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    put, troubles = registry.app.objects.put_directory, [Unavailable("the store is away")]

    async def away_once(directory: Path) -> Any:
        if troubles:
            raise troubles.pop()
        return await put(directory)

    registry.app.objects.put_directory = away_once  # type: ignore[method-assign]
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.lease_epoch) == (BuildState.SUCCEEDED, 2)


async def test_a_database_that_is_away_does_not_end_the_build(open_registry: OpenRegistry) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    succeed = registry.app.builds.succeed
    troubles = [Unavailable("the database is locked") for _ in range(2)]

    async def away_twice(*arguments: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return await succeed(*arguments)

    registry.app.builds.succeed = away_twice  # type: ignore[method-assign]
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.lease_epoch) == (BuildState.SUCCEEDED, 1)


async def test_a_full_disk_costs_no_try(open_registry: OpenRegistry) -> None:
    registry = await open_registry(build_command=command("sys.exit(74)"), build_max_attempts=1)
    build = await queue(registry)
    async with building(registry):
        await until(lambda: back_in_the_queue(registry, build))
    assert (await registry.app.builds.get(build.id)).error == ""


async def test_a_build_command_that_does_not_exist_is_named(open_registry: OpenRegistry) -> None:
    registry = await open_registry(build_command=("no-such-command",))
    build = await queue(registry)
    async with building(registry):
        done = await outcome(registry, build)
    assert done.state == BuildState.FAILED
    assert "no-such-command" in done.error


async def test_damaged_inputs_fail_the_build(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    for blob in (tmp_path / "objects/blobs/sha256").iterdir():
        blob.write_bytes(b"damaged")
    async with building(registry):
        done = await outcome(registry, build)
    assert done.state == BuildState.FAILED
    assert "is damaged" in done.error


async def test_a_base_that_is_not_registered_is_refused_before_anything_is_built(open_registry: OpenRegistry) -> None:
    registry = await open_registry(build_command=command(GOOD))
    base = await registry.register_base()
    base.digest = "0" * 64
    with pytest.raises(NotFound, match="models/qwen has no version with digest 000"), translated("registry"):
        await registry.register_adapter("orphan", base)
    assert (await registry.app.versions.get_collection("models/orphan")).latest_version == 0


async def test_a_base_whose_manifest_is_damaged_in_the_object_store_is_read_from_the_metadata(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    for stored in (tmp_path / "objects/manifests").iterdir():
        stored.write_bytes(b"{}")
    async with building(registry):
        assert (await outcome(registry, build)).state == BuildState.SUCCEEDED


async def test_a_running_build_is_stopped_on_request(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(build_command=command(WAIT), build_lease_seconds=0.2)
    build = await queue(registry)

    async def under_way() -> bool:
        return (await registry.app.builds.get(build.id)).progress == "under way"

    async with building(registry):
        await until(under_way)
        await registry.app.builds.request_cancel(build.id)
        done = await outcome(registry, build)
        assert done.state == BuildState.CANCELLED
        assert done.end_time is not None
        await cleaned(tmp_path)


async def test_a_slow_fetch_keeps_the_lease(open_registry: OpenRegistry) -> None:
    """Fetching a large base takes longer than a lease; nobody else may take the build meanwhile."""
    registry = await open_registry(build_command=command(GOOD), build_lease_seconds=0.2, build_slots=2)
    build = await queue(registry)
    fetch = registry.app.objects.fetch
    beats: list[str] = []
    heartbeat = registry.app.builds.heartbeat

    async def counting(build: Build, *, progress: str) -> None:
        beats.append(build.id)
        await heartbeat(build, progress=progress)

    async def slow(*arguments: Any) -> None:
        async def enough() -> bool:
            return len(beats) >= 8  # two leases

        await until(enough)
        await fetch(*arguments)

    registry.app.objects.fetch = slow  # type: ignore[method-assign]
    registry.app.builds.heartbeat = counting  # type: ignore[method-assign]
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.lease_epoch) == (BuildState.SUCCEEDED, 1)


async def test_work_under_a_lost_lease_is_dropped(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(build_command=command(WAIT), build_lease_seconds=0.2)
    await queue(registry)
    old = await registry.app.builds.claim()
    assert old is not None
    work = asyncio.create_task(registry.app.runner.process(old))

    async def under_way() -> bool:
        return (await registry.app.builds.get(old.id)).progress == "under way"

    await until(under_way)
    await _claim_away(registry.app.versions, old)
    await asyncio.wait_for(work, 10)
    now = await registry.app.builds.get(old.id)
    assert (now.state, now.lease_epoch, now.error) == (BuildState.RUNNING, 2, "")
    await cleaned(tmp_path)


async def _claim_away(versions: VersionStore, build: Build) -> None:
    """What a claim by another process leaves."""
    from tuneloom_registry.tables import builds

    async with versions._database.write() as db:
        await db.execute(builds.update().where(builds.c.id == build.id).values(lease_epoch=build.lease_epoch + 1))


async def test_what_a_dead_claim_left_behind_is_removed(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(build_command=command(GOOD))
    build = await queue(registry)
    for stale in (f"{build.id}-0", f"{build.id}-1"):
        (tmp_path / "work/builds" / stale / "out").mkdir(parents=True)
    (tmp_path / "work/builds/build-other-1").mkdir()
    async with building(registry):
        assert (await outcome(registry, build)).state == BuildState.SUCCEEDED
    await cleaned(tmp_path, but="build-other-1")


async def test_stopping_the_registry_stops_the_process_and_puts_the_build_back(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    registry = await open_registry(build_command=command(WAIT), build_lease_seconds=0.2)
    build = await queue(registry)

    async def under_way() -> bool:
        return (await registry.app.builds.get(build.id)).progress == "under way"

    async with building(registry):
        await until(under_way)
    assert (await registry.app.builds.get(build.id)).state == BuildState.QUEUED
    await cleaned(tmp_path)


async def test_slots_build_side_by_side(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """Each waits for the other's sign, so one after the other would never end."""
    meet = f"""
here = Path({str(tmp_path)!r})
(here / f"sign-{{os.getpid()}}").touch()
while len(list(here.glob("sign-*"))) < 2: time.sleep(0.005)
"""
    registry = await open_registry(build_command=command(meet + GOOD), build_slots=2)
    first = await queue(registry)
    second = await queue(registry, first.spec.source)
    async with building(registry):
        done = [await outcome(registry, build) for build in (first, second)]
    assert [build.state for build in done] == [BuildState.SUCCEEDED] * 2
