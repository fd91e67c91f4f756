"""What is remembered about names, and for how long. Over the fake registry and the same one behind gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes import FakeRegistry, serve_registry
from tests.unit.gateway.conftest import until
from tuneloom_client.registry import RegistryClient
from tuneloom_common.errors import NotFound, Unavailable
from tuneloom_gateway.metrics import Metrics
from tuneloom_gateway.routing.follow import NEXT_CHANGE, Follow
from tuneloom_gateway.routing.registry import Registry
from tuneloom_gateway.routing.resolution import CONCURRENT_LOOK_UPS, Routing


def open_client(address: str, token: str | None, *, timeout_seconds: float = 5) -> RegistryClient:
    setting = "TUNELOOM_GATEWAY_REGISTRY_TOKEN"
    return RegistryClient.at(address, token=token, token_setting=setting, timeout_seconds=timeout_seconds)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["fake", "grpc"])
async def over(request: pytest.FixtureRequest, registry: FakeRegistry) -> AsyncIterator[Registry]:
    """The seam to the registry, both implementations."""
    if request.param == "fake":
        yield registry
        return
    async with serve_registry(registry, token="t") as address:
        client = open_client(address, "t")
        yield client
        await client.close()


@pytest.fixture
async def routing(over: Registry, clock: Clock) -> AsyncIterator[Routing]:
    routing = Routing(over, stale_seconds=2, clock=clock)
    yield routing
    await routing.close()


@pytest.fixture
async def pauses(over: Registry, routing: Routing) -> AsyncIterator[asyncio.Queue[float]]:
    """Runs a watch whose waits between attempts end when the test takes them from the queue."""
    pauses: asyncio.Queue[float] = asyncio.Queue(maxsize=1)
    watch = asyncio.create_task(Follow(over, routing, Metrics(), sleep=pauses.put).run())
    await pauses.put(0)  # the first wait will block until this is taken
    yield pauses
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def number(routing: Routing, name: str = "assistant") -> int:
    return int((await routing.resolve(name)).versions[0].version.rpartition("/")[2])


def is_live(routing: Routing) -> bool:
    return routing._live


async def test_a_name_is_asked_for_once(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float], clock: Clock
) -> None:
    await until(lambda: is_live(routing))
    assert [await number(routing) for _ in range(3)] == [1, 1, 1]
    clock.now += 1e6
    assert await number(routing) == 1
    assert registry.asked == ["assistant"]


async def test_concurrent_requests_share_one_question(routing: Routing, registry: FakeRegistry) -> None:
    assert await asyncio.gather(*(number(routing) for _ in range(20))) == [1] * 20
    assert registry.asked == ["assistant"]


async def test_a_move_is_seen_at_once(routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]) -> None:
    await until(lambda: is_live(routing))
    assert await number(routing) == 1
    assert await number(routing, "coach") == 1
    registry.move("assistant", "default", 2)
    await until(lambda: "assistant" not in routing._known)
    assert await number(routing) == 2
    assert await number(routing, "coach") == 1
    assert registry.asked == ["assistant", "coach", "assistant"]


async def test_an_answer_overtaken_by_a_move_is_not_remembered(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]
) -> None:
    await until(lambda: is_live(routing))
    asked, go = asyncio.Event(), asyncio.Event()

    async def hold_the_first() -> None:
        if len(registry.asked) == 1:
            asked.set()
            await go.wait()

    registry.before_answer = hold_the_first
    slow = asyncio.create_task(number(routing))
    await asked.wait()
    generation = routing._generation
    registry.move("assistant", "default", 2)
    await until(lambda: routing._generation > generation)
    assert await number(routing) == 2  # does not join the question asked before the move
    go.set()
    assert await slow == 1  # it was true when it was asked
    assert await number(routing) == 2
    assert registry.asked == ["assistant", "assistant"]


async def test_without_a_watch_an_alias_lives_two_seconds(
    routing: Routing, registry: FakeRegistry, clock: Clock
) -> None:
    assert await number(routing) == 1
    registry.move("assistant", "default", 2)
    clock.now += 1.9
    assert await number(routing) == 1
    clock.now += 0.2
    assert await number(routing) == 2


async def test_two_seconds_count_from_the_loss_of_the_watch(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float], clock: Clock
) -> None:
    await until(lambda: is_live(routing))
    assert await number(routing) == 1
    clock.now += 500
    registry.down = True
    registry.end_watches()
    await until(lambda: not is_live(routing))
    clock.now += 1.9
    assert await number(routing) == 1  # known to be true 1.9 s ago
    clock.now += 0.2
    with pytest.raises(Unavailable):
        await routing.resolve("assistant")


async def test_fixed_names_outlive_the_registry(routing: Routing, registry: FakeRegistry, clock: Clock) -> None:
    digest = registry.versions["assistant"][1].digest
    names = ["assistant:2", f"assistant@sha256:{digest}", f"assistant--{digest[:12]}"]
    assert [await number(routing, name) for name in names] == [2, 2, 2]
    registry.down = True
    clock.now += 1e6
    assert [await number(routing, name) for name in names] == [2, 2, 2]


async def test_the_watch_comes_back_and_forgets(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]
) -> None:
    await until(lambda: is_live(routing))
    assert registry.watched_after == [NEXT_CHANGE]
    registry.move("assistant", "canary", 1)
    registry.move("assistant", "canary", 2)
    await number(routing, "coach")
    await until(lambda: routing._generation >= 3)
    registry.end_watches()
    await until(lambda: not is_live(routing))
    registry.aliases["coach"]["default"] = 2
    registry.add("coach", "merged", base=registry.versions["qwen"][0])  # while nobody watched
    await pauses.get()
    await until(lambda: is_live(routing))
    assert registry.watched_after == [NEXT_CHANGE, NEXT_CHANGE]
    assert await number(routing, "coach") == 2


async def test_waits_between_attempts_grow(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]
) -> None:
    registry.down = True
    registry.end_watches()
    waits = [await pauses.get() for _ in range(8)]
    assert waits[0] == 0
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] <= 5
    registry.down = False
    while not is_live(routing):
        with_pause = asyncio.create_task(pauses.get())
        await until(lambda task=with_pause: task.done() or is_live(routing))  # type: ignore[misc]
        with_pause.cancel()
    assert await number(routing) == 1


async def unknown(routing: Routing, name: str) -> str:
    with pytest.raises(NotFound, match="GET /v1/models") as error:
        await routing.resolve(name)
    return error.value.message


async def test_an_unknown_name_is_remembered_until_it_means_something(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]
) -> None:
    await until(lambda: is_live(routing))
    for _ in range(3):
        await unknown(routing, "helper")
        await unknown(routing, "assistant:3")
    assert registry.asked == ["helper", "assistant:3"]
    registry.add("helper", "base")
    registry.move("helper", "default", 1)
    await until(lambda: "helper" not in routing._unknown)
    assert await number(routing, "helper") == 1
    await unknown(routing, "assistant:3")
    assert registry.asked == ["helper", "assistant:3", "helper"]


async def test_an_unknown_name_is_forgotten_after_a_while(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float], clock: Clock
) -> None:
    await until(lambda: is_live(routing))
    await unknown(routing, "helper")
    registry.add("helper", "base")  # nobody is told, as after a restored backup
    clock.now += 29
    await unknown(routing, "helper")
    clock.now += 2
    assert await number(routing, "helper") == 1


async def test_without_a_watch_an_unknown_name_lives_two_seconds(
    routing: Routing, registry: FakeRegistry, clock: Clock
) -> None:
    await unknown(routing, "helper")
    registry.add("helper", "base")
    clock.now += 1.9
    await unknown(routing, "helper")
    clock.now += 0.2
    assert await number(routing, "helper") == 1


async def test_thousands_of_unknown_names_cost_little(
    routing: Routing, registry: FakeRegistry, pauses: asyncio.Queue[float]
) -> None:
    await until(lambda: is_live(routing))
    names = [f"helper-{index}" for index in range(2500)]
    for start in range(0, len(names), 500):
        await asyncio.gather(*(unknown(routing, name) for name in names[start : start + 500]))
    assert registry.lists <= 4  # once, in four pages over gRPC
    assert len(routing._unknown) == 2000
    assert await number(routing) == 1
    registry.asked.clear()
    await asyncio.gather(*(unknown(routing, name) for name in names[-1000:] * 3))
    assert registry.asked == []


async def test_names_that_no_registry_issues_are_not_asked_for(routing: Routing, registry: FakeRegistry) -> None:
    for name in ("GPT-4", "", "../etc/passwd", "a b", "x" * 100_000, "a@b@c", "a:0", "\ud800"):
        assert len(await unknown(routing, name)) < 700
    assert registry.asked == []


async def test_the_registry_is_asked_few_names_at_a_time(routing: Routing, registry: FakeRegistry) -> None:
    together = most = 0

    async def count() -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0)
        together -= 1

    registry.before_answer = count
    outcomes = await asyncio.gather(*(routing.resolve(f"n-{index}") for index in range(1200)), return_exceptions=True)
    assert most <= CONCURRENT_LOOK_UPS
    assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) <= 200
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) >= 1000


async def test_a_caller_that_leaves_does_not_end_the_question(routing: Routing, registry: FakeRegistry) -> None:
    go = asyncio.Event()

    async def hold() -> None:
        await go.wait()

    registry.before_answer = hold
    first, second = asyncio.create_task(number(routing)), asyncio.create_task(number(routing))
    await until(lambda: registry.asked == ["assistant"])
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go.set()
    assert await second == 1
    assert registry.asked == ["assistant"]


async def test_all_pages_of_models(over: Registry) -> None:
    assert [model.name for model in await over.models()] == [
        "models/assistant", "models/coach", "models/qwen", "models/raw",
    ]  # fmt: skip
    assert len(await over.models(at_most=1)) == 1


async def test_the_gateways_own_token_is_not_the_callers_matter(registry: FakeRegistry) -> None:
    async with serve_registry(registry, token="right") as address:
        client = open_client(address, "wrong")
        with pytest.raises(Unavailable, match="TUNELOOM_GATEWAY_REGISTRY_TOKEN"):
            await client.resolve("assistant")
        with pytest.raises(Unavailable, match="TUNELOOM_GATEWAY_REGISTRY_TOKEN"):
            await client.watch(NEXT_CHANGE)
        await client.close()


async def test_a_slow_registry_is_unavailable(registry: FakeRegistry) -> None:
    registry.before_answer = asyncio.Event().wait  # type: ignore[assignment]
    async with serve_registry(registry) as address:
        client = open_client(address, None, timeout_seconds=0.05)
        with pytest.raises(Unavailable, match="did not answer in time"):
            await client.resolve("assistant")
        await client.close()
