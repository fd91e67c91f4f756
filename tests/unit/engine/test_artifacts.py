from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine.fakes import FakeRegistry
from tuneloom_common.errors import FailedPrecondition, NotFound, Unavailable
from tuneloom_common.objects import ObjectStore
from tuneloom_engine.artifacts import Artifacts


class CountingStore(ObjectStore):
    """Counts what is made available; `rival` runs in between, as another process would."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.materialized = 0
        self.rival: ObjectStore | None = None

    async def materialize(self, files: Any, directory: Path) -> Path:
        self.materialized += 1
        if self.rival is not None:
            await self.rival.materialize(files, directory)
        return await super().materialize(files, directory)


@pytest.fixture
def store(registry: FakeRegistry) -> CountingStore:
    return CountingStore(registry.objects.url)


@pytest.fixture
def artifacts(registry: FakeRegistry, store: CountingStore, tmp_path: Path) -> Artifacts:
    class Direct:
        async def resolve(self, name: str) -> Any:
            return registry.versions[name]

    return Artifacts(Direct(), store, tmp_path / "cache")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


async def test_an_adapter_is_its_two_files(registry: FakeRegistry, artifacts: Artifacts) -> None:
    base = await registry.publish_model("chat")
    name = await registry.publish_adapter("tuned", base=base)
    artifact = await artifacts.find(name)
    directory = await artifacts.fetch(artifact)
    assert directory.name == artifact.digest
    assert contents(directory) == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"tuned"}


async def test_engines_never_see_a_pickle(registry: FakeRegistry, artifacts: Artifacts) -> None:
    files = {"model.safetensors": b"w", "pytorch_model.bin": b"p", "extra/state.PT": b"p", "extra/vocab.json": b"v"}
    artifact = await artifacts.find(await registry.publish("chat", "base", files))
    assert set(contents(await artifacts.fetch(artifact))) == {"model.safetensors", "extra/vocab.json"}


async def test_an_adapter_without_weights_is_refused(registry: FakeRegistry, artifacts: Artifacts) -> None:
    base = await registry.publish_model("chat")
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"}
    artifact = await artifacts.find(await registry.publish("tuned", "adapter", files, base=base))
    with pytest.raises(FailedPrecondition, match=r"adapter_model\.safetensors"):
        await artifacts.fetch(artifact)


async def test_concurrent_requests_fetch_once(
    registry: FakeRegistry, artifacts: Artifacts, store: CountingStore
) -> None:
    artifact = await artifacts.find(await registry.publish_model("chat"))
    directories = await asyncio.gather(*(artifacts.fetch(artifact) for _ in range(5)))
    assert len(set(directories)) == 1
    await artifacts.fetch(artifact)
    assert store.materialized == 1


async def test_another_process_may_be_faster(
    registry: FakeRegistry, artifacts: Artifacts, store: CountingStore
) -> None:
    artifact = await artifacts.find(await registry.publish_model("chat"))
    store.rival = ObjectStore(store.url)
    assert set(contents(await artifacts.fetch(artifact))) == {"config.json", "model.safetensors"}


async def test_a_store_that_fails_is_not_hidden(registry: FakeRegistry, artifacts: Artifacts, tmp_path: Path) -> None:
    artifact = await artifacts.find(await registry.publish_model("chat"))
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(Unavailable):
        await artifacts.fetch(artifact)


async def test_a_missing_blob_is_named(registry: FakeRegistry, artifacts: Artifacts, tmp_path: Path) -> None:
    artifact = await artifacts.find(await registry.publish_model("chat"))
    for blob in (tmp_path / "objects/blobs/sha256").iterdir():
        blob.unlink()
    with pytest.raises(NotFound, match="blob"):
        await artifacts.fetch(artifact)


async def test_a_directory_that_lost_a_file_is_fetched_again(registry: FakeRegistry, artifacts: Artifacts) -> None:
    artifact = await artifacts.find(await registry.publish_model("chat"))
    directory = await artifacts.fetch(artifact)
    (directory / "model.safetensors").unlink()
    assert "model.safetensors" in contents(await artifacts.fetch(artifact))


def test_leftovers_of_dead_processes_are_removed(artifacts: Artifacts, tmp_path: Path) -> None:
    mine, dead = (tmp_path / f"cache/aa.part-{pid}" for pid in (os.getpid(), 2**22 + 1))
    for staging in (mine, dead):
        staging.mkdir(parents=True)
        (staging / "file").write_text("half")
    artifacts.remove_leftovers()
    assert mine.exists()
    assert not dead.exists()
