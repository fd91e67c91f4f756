"""Engines that crash, fail to start or do not listen, through the host's HTTP API."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.unit.engine.conftest import Clock, Fleet
from tests.unit.engine.fakes import FakeRegistry
from tests.unit.engine.hosts import OpenHost, listed, ready, shown, soon, until


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
    await until(lambda: soon(fleet.starts == [good, broken, good]))
    pid = (await ready(client, good))["pid"]
    clock.now += 60
    answer = await ready(client, broken, status=503)
    assert "TUNELOOM_ENGINE_MAX_REPLICAS" in answer["error"]
    assert "upside down" in answer["error"]
    assert (await ready(client, good))["pid"] == pid
    assert fleet.starts == [good, broken, good]


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
