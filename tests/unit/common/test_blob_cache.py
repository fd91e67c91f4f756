from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.errors import DataLoss, NotFound
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore


class Counting(ObjectStore):
    """Counts how often a blob is fetched, and so verified."""

    fetched = 0

    async def fetch(self, file: FileEntry, target: Path) -> None:
        self.fetched += 1
        await super().fetch(file, target)


@pytest.fixture(params=["file", "memory"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Counting:
    return await Counting(f"file://{tmp_path}/objects" if request.param == "file" else "memory://").create()


async def put(objects: ObjectStore, tmp_path: Path, content: bytes, *, name: str = "a") -> FileEntry:
    path = tmp_path / "source"
    path.write_bytes(content)
    return await objects.put_file(path, name=name)


async def test_a_blob_is_verified_once_for_everybody(objects: Counting, tmp_path: Path) -> None:
    entry = await put(objects, tmp_path, b"hello", name="d/a")
    for number in range(3):
        cache = BlobCache(objects, tmp_path / "cache")  # as in three processes
        out = await cache.materialize([entry], tmp_path / f"out{number}")
        assert (out / "d/a").read_bytes() == b"hello"
    assert objects.fetched == 1


async def test_rivals_fetch_once(objects: Counting, tmp_path: Path) -> None:
    entry = await put(objects, tmp_path, os.urandom(100_000))
    cache = BlobCache(objects, tmp_path / "cache")
    await asyncio.gather(*(cache.materialize([entry], tmp_path / f"out{i}") for i in range(5)))
    assert objects.fetched == 1


async def test_an_entry_that_was_written_to_is_verified_again(tmp_path: Path) -> None:
    objects = Counting("memory://")
    entry = await put(objects, tmp_path, b"hello")
    cache = BlobCache(objects, tmp_path / "cache")
    out = await cache.materialize([entry], tmp_path / "one")
    (out / "a").write_bytes(b"jello")
    out = await cache.materialize([entry], tmp_path / "two")
    assert (out / "a").read_bytes() == b"hello"
    assert objects.fetched == 2


async def test_a_damaged_blob_is_not_cached(tmp_path: Path) -> None:
    objects = await ObjectStore(f"file://{tmp_path}/objects").create()
    entry = await put(objects, tmp_path, b"hello")
    (tmp_path / "objects/blobs/sha256" / entry.sha256).write_bytes(b"jello")
    cache = BlobCache(objects, tmp_path / "cache")
    for error in (DataLoss, NotFound):  # found, then put aside
        with pytest.raises(error):
            await cache.materialize([entry], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".lock")]


async def test_the_least_recently_used_leave_when_it_is_full(tmp_path: Path) -> None:
    objects = Counting("memory://")
    entries = [await put(objects, tmp_path, os.urandom(1000)) for _ in range(4)]
    cache = BlobCache(objects, tmp_path / "cache", max_bytes=2500)

    async def use(number: int) -> None:
        out = await cache.materialize([entries[number]], tmp_path / "out")
        (out / "a").unlink()
        out.rmdir()

    for number in (0, 1, 0, 2):
        await use(number)
    assert objects.fetched == 3
    await use(0)
    assert objects.fetched == 3
    await use(1)
    assert objects.fetched == 4


async def test_what_is_in_use_stays_usable_when_it_leaves(tmp_path: Path) -> None:
    objects = Counting("memory://")
    entries = [await put(objects, tmp_path, os.urandom(1000)) for _ in range(3)]
    cache = BlobCache(objects, tmp_path / "cache", max_bytes=1)
    outs = [await cache.materialize([entry], tmp_path / f"out{i}") for i, entry in enumerate(entries)]
    assert [(out / "a").stat().st_size for out in outs] == [1000] * 3


async def test_beginnings_that_nobody_wants_any_more_leave(tmp_path: Path) -> None:
    objects = Counting("memory://")
    entry = await put(objects, tmp_path, b"hello")
    cache = BlobCache(objects, tmp_path / "cache")
    await cache.materialize([entry], tmp_path / "one")
    old, new = (tmp_path / "cache" / f"{digit * 64}.part.fetching" for digit in "01")
    for path, age in ((old, 25 * 3600), (new, 3600)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    await cache.materialize([await put(objects, tmp_path, b"more")], tmp_path / "two")
    assert (old.exists(), new.exists()) == (False, True)
