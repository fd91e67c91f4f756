"""The host through its HTTP API, with engines that are real processes but have no model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer

from tests.unit.engine.conftest import Clock, Fleet, MakeSettings
from tests.unit.engine.fakes import FakeRegistry
from tests.unit.engine.hosts import OpenHost, listed, metrics, reaching, ready, shown, soon, until
from tuneloom_engine.app import HOST, build


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
    await until(lambda: soon(fleet.starts))
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


async def test_a_start_can_be_watched(registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, clock: Clock) -> None:
    name, merged = await registry.publish_model("chat"), await registry.publish_model("chat-2", "merged")
    client = await open_host()
    slow = fleet.tell(name, "slow")
    async with client.get(f"/replicas/{name}") as response:
        assert response.status == 404
    start = asyncio.create_task(ready(client, name))
    await until(lambda: soon(fleet.starts))
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
    await until(lambda: soon(fleet.starts))
    clock.now += 50
    (fleet.directory / f"{name}.slow").unlink()
    await start
    fleet.tell(other, "slow")
    second = await open_host()
    waiting = asyncio.create_task(ready(second, other, status=503))
    await until(lambda: soon(len(fleet.starts) == 2))
    assert (await shown(second, other))["expected_seconds"] == 50.0
    await second.delete(f"/replicas/{other}")
    await waiting


async def test_a_start_that_is_fetching_can_be_stopped(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    registry.hold.clear()
    start = asyncio.create_task(ready(client, name, status=503))
    await until(lambda: soon(registry.asked))
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
        await until(lambda: soon(fleet.starts))
        app[HOST].refuse()
        assert (await start)["reason"] == "ENGINE_HOST_STOPPING"
        assert (await ready(client, other, status=503))["reason"] == "ENGINE_HOST_STOPPING"
    assert fleet.starts == [name]


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
    await until(lambda: soon(fleet.starts))
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await start)["reason"] == "ENGINE_STOPPED"


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


async def test_idle_replicas_stop_and_busy_ones_stay(
    registry: FakeRegistry, make_settings: MakeSettings, fleet: Fleet, clock: Clock
) -> None:
    idle, waiting, serving = [await registry.publish_model(model) for model in ("idle", "waiting", "serving")]
    app = build(make_settings(idle_stop_seconds=60, max_replicas=3), clock=clock)
    async with TestClient(TestServer(app)) as client:
        for name in (idle, waiting, serving):
            await ready(client, name)
        fleet.tell(idle, "metrics", metrics(running=0, tokens=7))
        fleet.tell(waiting, "metrics", metrics(running=1, tokens=0))
        fleet.tell(serving, "metrics", metrics(running=0, tokens=7))
        await app[HOST].look_after()
        clock.now += 61
        fleet.tell(serving, "metrics", metrics(running=0, tokens=8))
        await app[HOST].look_after()
        assert set(await listed(client)) == {waiting, serving}


async def test_health(open_host: OpenHost) -> None:
    client = await open_host()
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
