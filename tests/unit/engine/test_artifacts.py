from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine.fakes import FakeRegistry
from tuneloom_client.versions import Version
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.errors import FailedPrecondition, NotFound, Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.cache import VersionCache


class CountingStore(ObjectStore):
    """Lists what is fetched; `rival` runs in between, as another process would."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fetched: list[str] = []
        self.rival: Callable[[], Awaitable[Any]] | None = None

    async def fetch(self, file: FileEntry, target: Path) -> None:
        self.fetched.append(file.path)
        if self.rival is not None:
            rival, self.rival = self.rival, None
            await rival()
        await super().fetch(file, target)


@dataclass
class Shelf:
    """Artifacts, and a way to fetch them."""

    registry: FakeRegistry
    store: CountingStore
    cache: VersionCache

    async def resolve(self, reference: str) -> Version:
        return Version.of(self.registry.versions[reference])

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(self, self.cache)

    async def fetch(self, name: str, *, holder: str = "engine") -> Path:
        return await self.artifacts.fetch(await self.artifacts.find(name), holder=holder)


@pytest.fixture
def make_shelf(registry: FakeRegistry, tmp_path: Path) -> Callable[..., Shelf]:
    def make(*, max_bytes: int = 1 << 30, blobs: str = "blobs") -> Shelf:
        store = CountingStore(registry.objects.url)
        cache = BlobCache(store, tmp_path / blobs, max_bytes=max_bytes)
        return Shelf(registry, store, VersionCache(cache, tmp_path / "cache", max_bytes=max_bytes))

    return make


@pytest.fixture
def shelf(make_shelf: Callable[..., Shelf]) -> Shelf:
    return make_shelf()


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


async def test_an_adapter_is_its_two_files(registry: FakeRegistry, shelf: Shelf) -> None:
    base = await registry.publish_model("chat")
    name = await registry.publish_adapter("tuned", base=base)
    directory = await shelf.fetch(name)
    assert directory.name == registry.versions[name].digest
    assert contents(directory) == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"tuned"}


async def test_engines_never_see_a_pickle(registry: FakeRegistry, shelf: Shelf) -> None:
    files = {"model.safetensors": b"w", "pytorch_model.bin": b"p", "extra/state.PT": b"p", "extra/vocab.json": b"v"}
    directory = await shelf.fetch(await registry.publish("chat", "base", files))
    assert set(contents(directory)) == {"model.safetensors", "extra/vocab.json"}


async def test_an_adapter_without_weights_is_refused(registry: FakeRegistry, shelf: Shelf) -> None:
    base = await registry.publish_model("chat")
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}
    name = await registry.publish("tuned", "adapter", files, base=base)
    with pytest.raises(FailedPrecondition, match=r"adapter_model\.safetensors"):
        await shelf.fetch(name)


async def test_concurrent_requests_fetch_once(registry: FakeRegistry, shelf: Shelf) -> None:
    name = await registry.publish_model("chat")
    directories = await asyncio.gather(*(shelf.fetch(name) for _ in range(5)))
    assert len(set(directories)) == 1
    await shelf.fetch(name)
    assert sorted(shelf.store.fetched) == ["config.json", "model.safetensors"]


async def test_blobs_are_shared_with_other_services_of_the_machine(
    registry: FakeRegistry, make_shelf: Callable[..., Shelf], tmp_path: Path
) -> None:
    name = await registry.publish_model("chat")
    files = (await make_shelf().artifacts.find(name)).served_files
    await BlobCache(registry.objects, tmp_path / "shared").materialize(files, tmp_path / "trainer")
    shelf = make_shelf(blobs="shared")
    assert set(contents(await shelf.fetch(name))) == {"config.json", "model.safetensors"}
    assert shelf.store.fetched == []


async def test_another_process_may_be_faster(registry: FakeRegistry, shelf: Shelf, tmp_path: Path) -> None:
    name = await registry.publish_model("chat")
    artifact = await shelf.artifacts.find(name)
    rival = ObjectStore(registry.objects.url)
    shelf.store.rival = lambda: rival.materialize(artifact.served_files, tmp_path / "cache" / artifact.digest)
    assert set(contents(await shelf.fetch(name))) == {"config.json", "model.safetensors"}
    assert shelf.store.rival is None


async def test_a_store_that_fails_is_not_hidden(registry: FakeRegistry, shelf: Shelf, tmp_path: Path) -> None:
    name = await registry.publish_model("chat")
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(Unavailable):
        await shelf.fetch(name)


async def test_a_missing_blob_is_named(registry: FakeRegistry, shelf: Shelf, tmp_path: Path) -> None:
    name = await registry.publish_model("chat")
    for blob in (tmp_path / "objects/blobs/sha256").iterdir():
        blob.unlink()
    with pytest.raises(NotFound, match="blob"):
        await shelf.fetch(name)


async def test_a_directory_that_lost_a_file_is_fetched_again(registry: FakeRegistry, shelf: Shelf) -> None:
    name = await registry.publish_model("chat")
    directory = await shelf.fetch(name)
    (directory / "model.safetensors").unlink()
    assert "model.safetensors" in contents(await shelf.fetch(name))


async def test_versions_that_nobody_holds_leave_the_oldest_first(
    registry: FakeRegistry, make_shelf: Callable[..., Shelf], tmp_path: Path
) -> None:
    shelf = make_shelf(max_bytes=200)
    directories = {}
    for age, model in enumerate(("held", "older", "newer"), start=-3):
        directory = await shelf.fetch(await registry.publish_model(model), holder=model)
        own_copies(directory)
        os.utime(directory, (age, age))
        directories[model] = directory
    for model in ("older", "newer"):
        shelf.cache.release(model)
    shelf.cache.prune()
    assert [model for model, directory in directories.items() if directory.exists()] == ["held", "newer"]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {path.name for path in directories.values()} - {
        directories["older"].name
    }


async def test_what_takes_no_room_of_its_own_stays(registry: FakeRegistry, make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf(max_bytes=0)
    directory = await shelf.fetch(await registry.publish_model("chat"))
    shelf.cache.release("engine")
    shelf.cache.prune()
    assert directory.exists()  # links to what a local object store holds anyway


def own_copies(directory: Path) -> None:
    """As on a machine whose object store is elsewhere."""
    for path in directory.iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def test_leftovers_of_dead_processes_are_removed(shelf: Shelf, tmp_path: Path) -> None:
    mine, dead = (tmp_path / f"cache/aa.part-{pid}" for pid in (os.getpid(), 2**22 + 1))
    for staging in (mine, dead):
        staging.mkdir(parents=True)
        (staging / "file").write_text("half")
    shelf.cache.remove_leftovers()
    assert mine.exists()
    assert not dead.exists()
