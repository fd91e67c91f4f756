"""The host through its HTTP API, with engines that are real processes but have no model."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from tests.unit.engine.conftest import Clock, Fleet, MakeSettings
from tests.unit.engine.fakes import TOKEN, FakeRegistry
from tuneloom_common.errors import Unavailable
from tuneloom_engine.app import HOST, build

OpenHost = Callable[..., Any]


async def ready(client: Any, name: str, *, status: int = 200) -> dict[str, Any]:
    async with client.post(f"/replicas/{name}") as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


def reaching(url: str) -> aiohttp.ClientSession:
    scheme, _, path = url.partition(":")
    assert scheme == "unix"
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path))


async def shown(client: Any, name: str) -> dict[str, Any]:
    async with client.get(f"/replicas/{name}") as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def listed(client: Any) -> dict[str, dict[str, Any]]:
    async with client.get("/replicas") as response:
        return {replica["name"]: replica for replica in (await response.json())["replicas"]}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_replica_is_started_once_and_listed(registry: FakeRegistry, open_host: OpenHost, fleet: Fleet) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    first = await ready(client, name)
    assert await ready(client, name) | {"last_used": ""} == first | {"last_used": ""}
    async with reaching(first["url"]) as engine, engine.get("http://engine/health") as health:
        assert health.status == 200
    replica = (await listed(client))[name]
    assert (replica["state"], replica["kind"], replica["pid"]) == ("ready", "base", first["pid"])
    assert fleet.starts == [name]


async def test_requests_for_one_replica_share_one_start(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name = await registry.publish_model("chat", "merged")
    client = await open_host()
    answers = await asyncio.gather(*(ready(client, name) for _ in range(5)))
    assert len({answer["pid"] for answer in answers}) == 1
    assert fleet.starts == [name]
    assert registry.asked == [name]


async def test_a_caller_who_leaves_does_not_end_the_start(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    impatient = asyncio.create_task(ready(client, name))
    await until(lambda: _async(fleet.starts))
    impatient.cancel()
    await ready(client, name)
    assert fleet.starts == [name]


async def test_the_least_recently_used_replica_leaves(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    one, two, three = [await registry.publish_model(f"chat-{number}") for number in (1, 2, 3)]
    client = await open_host(max_replicas=2)
    for name in (one, two, one, three):
        await ready(client, name)
    assert set(await listed(client)) == {one, three}
    assert fleet.most_at_once == 2


async def test_there_are_never_more_replicas_than_allowed(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    names = [await registry.publish_model(f"chat-{number}") for number in range(4)]
    client = await open_host(max_replicas=1)
    await asyncio.gather(*(ready(client, name) for name in names))
    assert sorted(fleet.starts) == sorted(names)
    assert fleet.most_at_once == 1


async def test_a_crashed_replica_is_shown_and_started_again(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    pid = (await ready(client, name))["pid"]
    os.kill(pid, signal.SIGKILL)

    async def failed() -> bool:
        return bool((await listed(client))[name]["state"] == "failed")

    await until(failed)
    assert "status -9" in (await listed(client))[name]["error"]
    assert (await ready(client, name))["pid"] != pid
    assert "error" not in (await listed(client))[name]


async def test_a_start_that_fails_tells_why_and_is_not_repeated_at_once(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock
) -> None:
    name = await registry.publish_model("chat")
    broken = fleet.tell(name, "broken")
    client = await open_host()
    answer = await ready(client, name, status=503)
    assert answer["reason"] == "ENGINE_FAILED"
    assert "while it started: the weights are upside down; its log" in answer["error"]
    assert answer["log"] == "the weights are upside down"
    assert (await shown(client, name)) | {"state": "failed", "error": answer["error"], "log": answer["log"]} == (
        await shown(client, name)
    )
    broken.unlink()
    clock.now += answer["retry_after_seconds"] - 1
    again = await ready(client, name, status=503)
    assert (again["error"], again["retry_after_seconds"]) == (answer["error"], 1.0)
    assert fleet.starts == [name]
    clock.now += 2
    assert "error" not in await ready(client, name)


async def test_every_failure_in_a_row_makes_the_pause_longer(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock
) -> None:
    name = await registry.publish_model("chat")
    fleet.tell(name, "broken")
    client = await open_host()
    pauses = []
    for _ in range(8):
        pauses.append((await ready(client, name, status=503))["retry_after_seconds"])
        clock.now += pauses[-1]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await ready(client, name, status=503))["retry_after_seconds"] == 5


async def test_what_cannot_be_a_model_stops_no_engine(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    good = await registry.publish_model("good")
    nonsense = await registry.publish("nonsense", "base", {"config.json": b"[]", "model.safetensors": b"no"})
    client = await open_host(max_replicas=1)
    pid = (await ready(client, good))["pid"]
    answer = await ready(client, nonsense, status=409)
    assert (answer["reason"], "config.json" in answer["error"]) == ("MODEL_INCOMPLETE", True)
    assert (await ready(client, good))["pid"] == pid
    assert fleet.starts == [good]


async def test_what_left_for_an_engine_that_fails_comes_back(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock
) -> None:
    good, broken = [await registry.publish_model(model) for model in ("good", "broken")]
    fleet.tell(broken, "broken")
    client = await open_host(max_replicas=1)
    await ready(client, good)
    await ready(client, broken, status=503)
    await until(lambda: _async(fleet.starts == [good, broken, good]))
    pid = (await ready(client, good))["pid"]
    clock.now += 60
    answer = await ready(client, broken, status=503)
    assert "TUNELOOM_ENGINE_MAX_REPLICAS" in answer["error"]
    assert "upside down" in answer["error"]
    assert (await ready(client, good))["pid"] == pid
    assert fleet.starts == [good, broken, good]


async def test_a_start_can_be_watched(registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock) -> None:
    name, merged = await registry.publish_model("chat"), await registry.publish_model("chat-2", "merged")
    client = await open_host()
    slow = fleet.tell(name, "slow")
    async with client.get(f"/replicas/{name}") as response:
        assert response.status == 404
    start = asyncio.create_task(ready(client, name))
    await until(lambda: _async(fleet.starts))
    clock.now += 30
    seen = await shown(client, name)
    assert (seen["state"], seen["seconds"], seen["expected_seconds"]) == ("starting", 30.0, None)
    slow.unlink()
    clock.now += 10
    assert (await start)["seconds"] == 40.0
    assert (await shown(client, name))["expected_seconds"] == 40.0
    assert (await ready(client, merged))["expected_seconds"] == 0.0  # its own start was the last


async def test_start_times_outlive_the_host(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock
) -> None:
    name, other = await registry.publish_model("chat"), await registry.publish_model("other")
    fleet.tell(name, "slow")
    first = await open_host()
    start = asyncio.create_task(ready(first, name))
    await until(lambda: _async(fleet.starts))
    clock.now += 50
    (fleet.directory / f"{name}.slow").unlink()
    await start
    fleet.tell(other, "slow")
    second = await open_host()
    waiting = asyncio.create_task(ready(second, other, status=503))
    await until(lambda: _async(len(fleet.starts) == 2))
    assert (await shown(second, other))["expected_seconds"] == 50.0
    await second.delete(f"/replicas/{other}")
    await waiting


async def test_a_start_that_is_fetching_can_be_stopped(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    registry.hold.clear()
    start = asyncio.create_task(ready(client, name, status=503))
    await until(lambda: _async(registry.asked))
    assert (await shown(client, name))["state"] == "fetching"
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await start)["reason"] == "ENGINE_STOPPED"
    assert await listed(client) == {}
    registry.hold.set()
    await ready(client, name)


async def test_who_waits_while_the_host_ends_is_told_so(
    registry: FakeRegistry, make_settings: MakeSettings, fleet: Fleet
) -> None:
    name, other = await registry.publish_model("chat"), await registry.publish_model("other")
    fleet.tell(name, "slow")
    app = build(make_settings())
    async with TestClient(TestServer(app)) as client:
        start = asyncio.create_task(ready(client, name, status=503))
        await until(lambda: _async(fleet.starts))
        app[HOST].refuse()
        assert (await start)["reason"] == "ENGINE_HOST_STOPPING"
        assert (await ready(client, other, status=503))["reason"] == "ENGINE_HOST_STOPPING"
    assert fleet.starts == [name]


async def test_an_engine_is_reached_by_its_user_only(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    first = await ready(client, name)
    socket = Path(first["url"].removeprefix("unix:"))
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert socket.parent.stat().st_uid == os.getuid()
    tables = [Path(f"/proc/{first['pid']}/net/{table}").read_text() for table in ("tcp", "tcp6")]
    inodes = {f"socket:[{line.split()[9]}]" for table in tables for line in table.splitlines()[1:]}
    held = {str(handle.readlink()) for handle in Path(f"/proc/{first['pid']}/fd").iterdir()}
    assert not held & inodes  # no port at all
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await ready(client, name))["url"] != first["url"]


async def test_an_engine_learns_no_secret(
    registry: FakeRegistry, open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TUNELOOM_ENGINE_REGISTRY_TOKEN", "TUNELOOM_ENGINE_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(variable, "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    client = await open_host(token=SecretStr("secret"))
    headers = {"Authorization": "Bearer secret"}
    name = await registry.publish_model("chat")
    async with client.post(f"/replicas/{name}", headers=headers) as response:
        pid = (await response.json())["pid"]
    environment = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line)
    assert "secret" not in environment.values()
    assert TOKEN not in environment.values()
    assert {name for name in environment if name.startswith("TUNELOOM_")} == {
        "TUNELOOM_ENGINE_ADAPTERS_SOCKET",
        "TUNELOOM_ENGINE_SERVES",
        "TUNELOOM_PARENT_PID",
    }
    assert "PATH" in environment


async def test_a_start_that_takes_too_long_is_ended(registry: FakeRegistry, open_host: OpenHost, fleet: Fleet) -> None:
    name = await registry.publish_model("chat")
    fleet.tell(name, "slow")
    client = await open_host(start_timeout_seconds=0.5)
    answer = await ready(client, name, status=503)
    assert "TUNELOOM_ENGINE_START_TIMEOUT_SECONDS" in answer["error"]
    assert "pid" not in (await listed(client))[name]


async def test_a_failed_replica_leaves_before_a_ready_one(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    one, two, three = [await registry.publish_model(f"chat-{number}") for number in (1, 2, 3)]
    fleet.tell(two, "broken")
    client = await open_host(max_replicas=2)
    await ready(client, one)
    await ready(client, two, status=503)
    await ready(client, three)
    assert set(await listed(client)) == {one, three}


async def test_a_replica_is_stopped_on_request(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    pid = (await ready(client, name))["pid"]
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert await listed(client) == {}
    assert not Path(f"/proc/{pid}").exists()
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 404


async def test_a_replica_can_be_stopped_while_it_starts(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name = await registry.publish_model("chat")
    fleet.tell(name, "slow")
    client = await open_host()
    start = asyncio.create_task(ready(client, name, status=503))
    await until(lambda: _async(fleet.starts))
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await start)["reason"] == "ENGINE_STOPPED"


async def test_an_engine_that_does_not_listen_to_reason_is_killed(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name = await registry.publish_model("chat")
    fleet.tell(name, "deaf")
    client = await open_host(drain_seconds=0.1)
    pid = (await ready(client, name))["pid"]
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert not Path(f"/proc/{pid}").exists()


async def test_engines_end_with_the_host(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host(preload=(name,))
    pid = (await ready(client, name))["pid"]
    await client.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_preloaded_replicas_start_by_themselves(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name = await registry.publish_model("chat")
    client = await open_host(preload=("ghost--0123456789ab", name))

    async def loaded() -> bool:
        return {name: one["state"] for name, one in (await listed(client)).items()} == {name: "ready"}

    await until(loaded)


async def test_an_unknown_version_is_not_found(registry: FakeRegistry, open_host: OpenHost) -> None:
    answer = await ready(await open_host(), "ghost--0123456789ab", status=404)
    assert "ghost--0123456789ab" in answer["error"]


@pytest.mark.parametrize(
    "name",
    [
        "chat",
        "chat--0123456789AB",
        "chat--0123456789abc",
        "..%2F..%2Fetc--0123456789ab",
        "a%2Fb--0123456789ab",
        "..--0123456789ab",
        "-chat--0123456789ab",
        "chat---0123456789ab",
        "chat%00--0123456789ab",
        "chat--0123456789ab%0A",
        "--0123456789ab",
    ],
)
async def test_what_is_no_engine_name_reaches_nobody(registry: FakeRegistry, open_host: OpenHost, name: str) -> None:
    client = await open_host()
    await ready(client, name, status=400)
    assert registry.asked == []


async def test_a_manifest_that_is_not_what_the_name_says_is_refused(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name, other = [await registry.publish_model(model) for model in ("chat", "other")]
    client = await open_host()
    genuine = registry.versions[name]
    registry.versions[name] = registry.versions[other]
    answer = await ready(client, name, status=500)
    assert answer["reason"] == "DIGEST_MISMATCH"
    forged = type(genuine)()
    forged.CopyFrom(genuine)
    forged.manifest_json += " "
    registry.versions[name] = forged
    await ready(client, name, status=500)
    assert fleet.starts == []


async def test_damaged_weights_are_not_served(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, tmp_path: Path
) -> None:
    name = await registry.publish_model("chat")
    for blob in (tmp_path / "objects/blobs/sha256").iterdir():
        blob.write_bytes(bytes(blob.stat().st_size))
    answer = await ready(await open_host(), name, status=500)
    assert answer["reason"] == "DIGEST_MISMATCH"
    assert fleet.starts == []
    assert list((tmp_path / "cache").glob("*.*")) == []
    assert not (tmp_path / "cache" / registry.versions[name].digest).exists()


async def test_an_adapter_has_no_engine_of_its_own(registry: FakeRegistry, open_host: OpenHost) -> None:
    base = await registry.publish_model("chat")
    adapter = await registry.publish_adapter("tuned", base=base)
    answer = await ready(await open_host(), adapter, status=409)
    assert answer["reason"] == "NOT_FULL_WEIGHTS"


async def test_without_the_engine_environment_the_answer_says_how_to_get_it(
    registry: FakeRegistry, open_host: OpenHost, tmp_path: Path
) -> None:
    name = await registry.publish_model("chat")
    client = await open_host(command=(), python=tmp_path / "nowhere/python")
    answer = await ready(client, name, status=409)
    assert answer["reason"] == "ENGINE_NOT_INSTALLED"
    assert "make install-engine" in answer["error"]
    assert not (tmp_path / "cache").exists()


async def test_a_registry_that_fails_is_unavailable(registry: FakeRegistry, open_host: OpenHost) -> None:
    registry.failure = Unavailable("the database is away")
    answer = await ready(await open_host(), "chat--0123456789ab", status=503)
    assert "database is away" in answer["error"]


async def test_a_wrong_token_is_named(registry: FakeRegistry, open_host: OpenHost) -> None:
    answer = await ready(await open_host(registry_token=None), "chat--0123456789ab", status=503)
    assert "TUNELOOM_ENGINE_REGISTRY_TOKEN" in answer["error"]


async def test_idle_replicas_stop_and_busy_ones_stay(
    registry: FakeRegistry, make_settings: MakeSettings, fleet: Fleet, clock: Clock
) -> None:
    idle, waiting, serving = [await registry.publish_model(model) for model in ("idle", "waiting", "serving")]
    app = build(make_settings(idle_stop_seconds=60, max_replicas=3), clock=clock)
    async with TestClient(TestServer(app)) as client:
        for name in (idle, waiting, serving):
            await ready(client, name)
        fleet.tell(idle, "metrics", _metrics(running=0, tokens=7))
        fleet.tell(waiting, "metrics", _metrics(running=1, tokens=0))
        fleet.tell(serving, "metrics", _metrics(running=0, tokens=7))
        await app[HOST].look_after()
        clock.now += 61
        fleet.tell(serving, "metrics", _metrics(running=0, tokens=8))
        await app[HOST].look_after()
        assert set(await listed(client)) == {waiting, serving}


async def test_health(open_host: OpenHost) -> None:
    client = await open_host()
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


def _metrics(*, running: int, tokens: int) -> str:
    return (
        "# HELP vllm:num_requests_running Requests in execution.\n"
        f'vllm:num_requests_running{{engine="0",model_name="x"}} {running}.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="x"} 0.0\n'
        f'vllm:generation_tokens_total{{engine="0",model_name="x"}} {tokens}.0\n'
    )


async def _async(value: Any) -> Any:
    return value
