from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import small_disk
from tests.object_store import SMALL, ObjectStoreContract, put, read
from tuneloom_common.errors import DataLoss, InvalidArgument, ResourceExhausted, Unavailable
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import CHUNK_BYTES, MARKER, ObjectStore, hash_file


@pytest.fixture(params=["file", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return await ObjectStore("memory://" if request.param == "memory" else f"file://{tmp_path}/objects").create()


@pytest.fixture
async def local(tmp_path: Path) -> ObjectStore:
    return await ObjectStore(f"file://{tmp_path}/objects").create()


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "objects/blobs/sha256"


def visible(tmp_path: Path) -> list[str]:
    """Everything in the object store's directory but its marker."""
    root = tmp_path / "objects"
    files = (path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    return sorted(path.relative_to(root).as_posix() for path in files)


class TestContract(ObjectStoreContract): ...


async def test_a_damaged_manifest_is_replaced(local: ObjectStore, tmp_path: Path) -> None:
    manifest = Manifest(kind="dataset", files=(await put(local, tmp_path),))
    await local.put_manifest(manifest)
    stored = tmp_path / f"objects/manifests/{manifest.digest}.json"
    stored.write_bytes(b"{}")
    with pytest.raises(DataLoss, match="manifest"):
        await local.read_manifest(manifest.digest)
    await local.put_manifest(manifest)
    assert await local.read_manifest(manifest.digest) == manifest


async def test_a_sound_manifest_is_not_written_again(local: ObjectStore, tmp_path: Path) -> None:
    entry = await put(local, tmp_path)
    manifest = Manifest(kind="dataset", files=(entry,))
    await local.put_manifest(manifest)
    stored = tmp_path / f"objects/manifests/{manifest.digest}.json"
    before = stored.stat()
    await local.put_manifest(manifest)
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_damaged_blob_is_never_handed_out_as_whole(local: ObjectStore, tmp_path: Path, blobs: Path) -> None:
    entry = await put(local, tmp_path)
    (blobs / entry.sha256).write_bytes(b"jello")
    with pytest.raises(DataLoss, match="upload the file again"):
        await local.materialize([entry], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    # The advice in the message works.
    await put(local, tmp_path)
    assert await read(local, entry.sha256) == SMALL


@pytest.mark.parametrize("stored", [b"", b"hell", b"hello, world"])
async def test_a_blob_of_another_size_is_stored_again(
    local: ObjectStore, tmp_path: Path, blobs: Path, stored: bytes
) -> None:
    entry = await put(local, tmp_path)
    (blobs / entry.sha256).write_bytes(stored)
    assert not await local.has_blob(entry.sha256, size=entry.size)
    await put(local, tmp_path)
    assert await read(local, entry.sha256) == SMALL


async def test_storing_again_keeps_the_blob_and_its_links(local: ObjectStore, tmp_path: Path, blobs: Path) -> None:
    entry = await put(local, tmp_path)
    before = (blobs / entry.sha256).stat()
    out = await local.materialize([entry], tmp_path / "out")
    await put(local, tmp_path)
    after = (blobs / entry.sha256).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (out / "a").samefile(blobs / entry.sha256)


async def test_a_cancelled_materialize_leaves_nothing(tmp_path: Path) -> None:
    reached = asyncio.Event()

    class Slow(ObjectStore):
        async def fetch(self, file: FileEntry, target: Path) -> None:
            await super().fetch(file, target)
            reached.set()
            await asyncio.Event().wait()

    store = await Slow(f"file://{tmp_path}/objects").create()
    entry = await put(store, tmp_path)
    work = asyncio.create_task(store.materialize([entry], tmp_path / "out"))
    await asyncio.wait_for(reached.wait(), 5)
    assert list(tmp_path.glob("out.part-*"))
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
async def test_a_store_whose_disk_is_away_knows_nothing_and_takes_nothing(
    local: ObjectStore, tmp_path: Path, left: str
) -> None:
    """Otherwise jobs fail for good over versions that are there, and what is stored meanwhile is lost later."""
    entry = await put(local, tmp_path)
    digest = await local.put_manifest(Manifest(kind="dataset", files=(entry,)))
    root, away = tmp_path / "objects", tmp_path / "away"
    root.rename(away)
    if left != "nothing":
        root.mkdir()
    for call in (
        lambda: local.has_blob(entry.sha256, size=entry.size),
        lambda: local.read_range(entry.sha256, 0, 2),
        lambda: read(local, entry.sha256),
        lambda: local.read_manifest(digest),
        lambda: local.materialize([entry], tmp_path / "out"),
        lambda: put(local, tmp_path, b"other"),
    ):
        with pytest.raises(Unavailable):
            await call()
    if left != "nothing":
        root.rmdir()
    away.rename(root)
    assert await read(local, entry.sha256) == SMALL


async def test_two_files_in_one_place_never_write_through_to_a_blob(local: ObjectStore, tmp_path: Path) -> None:
    """Hard links share their bytes: opening a linked file for writing would destroy the stored blob."""
    one, two = await put(local, tmp_path), await put(local, tmp_path, b"other")
    with pytest.raises(Unavailable):
        await local.materialize([one, two], tmp_path / "out")
    assert await read(local, one.sha256) == SMALL
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "url", ["", "objects", "/objects", "http://x/y", "file://relative/objects", "file://objects", "FILE:objects?"]
)
def test_an_unclear_url_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match="object store URL"):
        ObjectStore(url)


def test_hash_file_gives_hash_and_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(SMALL)
    assert hash_file(path) == (hashlib.sha256(SMALL).hexdigest(), 5)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        yield disk


@pytest.mark.parametrize("size", [300_000, 12 * CHUNK_BYTES], ids=["one-part", "many-parts"])
async def test_a_full_disk_says_so_and_shows_nothing_half(tiny_disk: Path, tmp_path: Path, size: int) -> None:
    store = await ObjectStore(f"file://{tiny_disk}/objects").create()
    kept = await put(store, tmp_path)
    with pytest.raises(ResourceExhausted, match="no space left") as caught:
        await put(store, tmp_path, os.urandom(size))
    assert caught.value.reason == "DISK_FULL"
    assert visible(tiny_disk) == [f"blobs/sha256/{kept.sha256}"]
    assert await read(store, kept.sha256) == SMALL
    # The store works on: what fits is stored.
    await put(store, tmp_path, b"fits")


async def test_materializing_onto_a_full_disk_leaves_nothing(tiny_disk: Path, tmp_path: Path) -> None:
    store = await ObjectStore(f"file://{tmp_path}/objects").create()
    entry = await put(store, tmp_path, os.urandom(300_000))
    with pytest.raises(ResourceExhausted):
        await store.materialize([entry], tiny_disk / "out")
    assert not list(tiny_disk.iterdir())


async def test_another_file_system_gets_verified_copies(tiny_disk: Path, tmp_path: Path, blobs: Path) -> None:
    store = await ObjectStore(f"file://{tmp_path}/objects").create()
    entry = await put(store, tmp_path)
    out = await store.materialize([entry], tiny_disk / "out")
    assert (out / "a").read_bytes() == SMALL
    assert not (out / "a").samefile(blobs / entry.sha256)
    (blobs / entry.sha256).write_bytes(b"jello")
    with pytest.raises(DataLoss):
        await store.materialize([entry], tiny_disk / "again")
    assert [path.name for path in tiny_disk.iterdir()] == ["out"]
