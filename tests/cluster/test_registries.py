"""Two registries are one: uploads, versions, builds, aliases and the stream of changes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.cluster.conftest import Clients, Library
from tests.cluster.services import Cluster
from tests.cluster.waiting import POLL_SECONDS, until
from tuneloom_client.builds import Build, BuildState, ConvertSpec
from tuneloom_client.registry import RegistryClient
from tuneloom_common.errors import Aborted, Unavailable


async def runs(registry: RegistryClient, build: Build) -> None:
    """Waits until a child works on it."""

    async def there() -> bool:
        now = await registry.build(build.name)
        assert not now.state.final, now
        return now.state is BuildState.RUNNING and bool(now.progress)

    await until(there)


def runner_of(cluster: Cluster, build: Build) -> int:
    """Which registry's child works on a build."""
    id_ = build.name.rpartition("/")[2]
    [number] = [
        n for n, each in enumerate(cluster.registries) if list((each.directory / "work/builds").glob(f"{id_}-*"))
    ]
    return number


async def asked(library: Library, clients: Clients, model: str, *, at: int = 0) -> Build:
    checkpoint = await library.checkpoint(f"{model}-steps", await library.base())
    await clients.registry.ensure_model(f"models/{model}")
    return await clients.registries[at].create_build(ConvertSpec(str(checkpoint.name)), target_model=f"models/{model}")


async def test_a_file_sent_to_one_becomes_a_version_at_the_other(clients: Clients, library: Library) -> None:
    base = await library.base()
    for registry in clients.registries:
        assert (await registry.resolve("seed")).digest == base.digest
        assert "models/seed" in [model.name for model in await registry.models()]


async def test_a_build_asked_for_at_one_is_followed_at_the_other(clients: Clients, library: Library) -> None:
    for at in (0, 1):
        build = await asked(library, clients, f"converted-{at}", at=at)
        ended = await clients.registries[1 - at].ended(build, poll_seconds=POLL_SECONDS)
        assert ended.state is BuildState.SUCCEEDED
        assert await clients.registries[at].build(build.name) == ended
        assert build.name in [each.name for each in await clients.registries[1 - at].builds()]


async def test_who_does_not_run_a_build_cancels_it(cluster: Cluster, clients: Clients, library: Library) -> None:
    cluster.gate.touch()
    build = await asked(library, clients, "cancelled")
    await runs(clients.registry, build)
    await clients.registries[1 - runner_of(cluster, build)].cancel_build(build.name)
    assert (await clients.registry.ended(build, poll_seconds=POLL_SECONDS)).state is BuildState.CANCELLED
    assert await clients.registry.versions("models/cancelled") == []


async def test_a_dead_registry_s_build_is_finished_by_the_other(
    cluster: Cluster, clients: Clients, library: Library
) -> None:
    cluster.gate.touch()
    build = await asked(library, clients, "taken-over")
    await runs(clients.registry, build)
    following = asyncio.create_task(clients.registry.ended(build, poll_seconds=POLL_SECONDS))
    cluster.registries[runner_of(cluster, build)].kill()
    cluster.gate.unlink()
    assert (await following).state is BuildState.SUCCEEDED
    assert len(await clients.registry.versions("models/taken-over")) == 1


async def test_an_upload_goes_on_at_the_other(cluster: Cluster, clients: Clients, tmp_path: Path) -> None:
    """Whichever of the two it had reached: both die in turn while it is under way, never at once."""
    file = tmp_path / "large"
    file.write_bytes(os.urandom(64 << 20))
    begun = asyncio.Event()
    uploading = asyncio.create_task(clients.registry.upload(file, on_bytes=lambda _: begun.set()))
    await begun.wait()
    cluster.registries[0].kill()
    cluster.registries[0].revive()
    begun.clear()
    cluster.registries[1].kill()
    entry = await uploading
    assert entry.size == 64 << 20
    cluster.registries[1].revive()
    again = await clients.registries[1].upload(file)
    assert again == entry


async def test_movers_at_both_lose_no_move(clients: Clients, library: Library) -> None:
    base = await library.base()
    for salt in ("one", "two"):
        await library.adapter("moved", base, salt=salt)

    async def move(registry: RegistryClient, times: int) -> int:
        won = 0
        while won < times:
            current = (await registry.model("models/moved")).aliases["default"]
            try:
                await registry.set_alias("models/moved", "default", 3 - current, expected=current)
                won += 1
            except Aborted:
                continue
        return won

    before = (await clients.registry.model("models/moved")).aliases["default"]
    moves = await asyncio.gather(*(move(registry, 5) for registry in clients.registries for _ in range(2)))
    assert sum(moves) == 20
    for registry in clients.registries:
        assert (await registry.model("models/moved")).aliases["default"] == before


async def test_changes_at_one_are_heard_at_the_other_in_one_order(clients: Clients, library: Library) -> None:
    base = await library.base()
    streams = [await registry.watch(-1) for registry in clients.registries]
    for number in range(6):
        await library.adapter("watched", base, salt=str(number))
        await clients.registries[number % 2].set_alias("models/watched", "default", 1 + number)
    heard: list[list[tuple[int, object]]] = []
    for stream in streams:
        events: list[tuple[int, object]] = []
        async with asyncio.timeout(10):
            async for event in stream:
                events.append((event.sequence, event))
                if getattr(event, "version", None) and len(events) >= 12:
                    break
        heard.append(events)
    assert heard[0] == heard[1]


@pytest.mark.parametrize("number", [0, 1])
async def test_a_client_of_both_hears_nothing_of_a_death(
    cluster: Cluster, clients: Clients, library: Library, number: int
) -> None:
    await library.base()
    assert (await clients.registry.resolve("seed")).engine_name
    cluster.registries[number].kill()
    for _ in range(6):
        assert (await clients.registry.resolve("seed")).engine_name
    with pytest.raises(Unavailable):
        await clients.registries[number].resolve("seed")
