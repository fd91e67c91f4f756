"""What every object store does, whatever it stores in. A test class inherits from this and has a fixture `store`."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import obstore
import pytest

from tuneloom_common.errors import DataLoss, NotFound, Unavailable
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import CHUNK_BYTES, ObjectStore, hash_file

SMALL = b"hello"


async def put(store: ObjectStore, tmp_path: Path, content: bytes = SMALL, *, name: str = "a") -> FileEntry:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return await store.put_file(path, name=name)


async def read(store: ObjectStore, sha256: str) -> bytes:
    return b"".join([chunk async for chunk in store.read_blob(sha256)])


class ObjectStoreContract:
    @pytest.mark.parametrize("content", [b"", SMALL, os.urandom(5 * CHUNK_BYTES + 3)], ids=["empty", "small", "large"])
    async def test_what_is_put_is_what_is_read(self, store: ObjectStore, tmp_path: Path, content: bytes) -> None:
        entry = await put(store, tmp_path, content)
        assert (entry.path, entry.size, entry.sha256) == ("a", len(content), hashlib.sha256(content).hexdigest())
        assert await store.has_blob(entry.sha256, size=len(content))
        assert await read(store, entry.sha256) == content

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore, tmp_path: Path) -> None:
        assert not await store.has_blob("0" * 64, size=0)
        with pytest.raises(NotFound):
            await read(store, "0" * 64)
        with pytest.raises(NotFound):
            await store.read_manifest("0" * 64)
        with pytest.raises(NotFound):
            await store.materialize([FileEntry(path="a", size=1, sha256="0" * 64)], tmp_path / "out")
        assert not list(tmp_path.glob("out*"))

    async def test_a_directory_is_stored_with_its_folders(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "in/deep/er").mkdir(parents=True)
        (tmp_path / "in/b").write_bytes(b"b")
        (tmp_path / "in/deep/er/a").write_bytes(b"a")
        files = await store.put_directory(tmp_path / "in")
        assert [file.path for file in files] == ["b", "deep/er/a"]
        out = await store.materialize(files, tmp_path / "out")
        assert (out / "deep/er/a").read_bytes() == b"a"

    async def test_a_manifest_is_written_once(self, store: ObjectStore, tmp_path: Path) -> None:
        manifest = Manifest(kind="dataset", files=(await put(store, tmp_path),))
        assert await store.put_manifest(manifest) == await store.put_manifest(manifest) == manifest.digest
        assert await store.read_manifest(manifest.digest) == manifest

    async def test_a_manifest_comes_after_its_blobs(self, store: ObjectStore, tmp_path: Path) -> None:
        there = await put(store, tmp_path)
        missing = FileEntry(path="b", size=1, sha256="0" * 64)
        wrong_size = there.model_copy(update={"size": there.size + 1})
        for files in ((there, missing), (wrong_size,)):
            manifest = Manifest(kind="dataset", files=files)
            with pytest.raises(NotFound, match="upload it before the manifest"):
                await store.put_manifest(manifest)
            with pytest.raises(NotFound):
                await store.read_manifest(manifest.digest)

    async def test_a_damaged_blob_is_put_aside_by_whoever_reads_it(self, store: ObjectStore, tmp_path: Path) -> None:
        entry = await put(store, tmp_path)
        await obstore.put_async(store._store, f"blobs/sha256/{entry.sha256}", b"jello")
        with pytest.raises(DataLoss):
            await read(store, entry.sha256)
        assert not await store.has_blob(entry.sha256, size=entry.size)
        await put(store, tmp_path)
        assert await read(store, entry.sha256) == SMALL

    async def test_an_upload_mends_a_damaged_blob_of_the_right_size(self, store: ObjectStore, tmp_path: Path) -> None:
        entry = await put(store, tmp_path)
        await obstore.put_async(store._store, f"blobs/sha256/{entry.sha256}", b"jello")
        assert await store.has_blob(entry.sha256, size=entry.size)
        await put(store, tmp_path)
        assert await read(store, entry.sha256) == SMALL

    async def test_a_range_of_a_blob_can_be_read(self, store: ObjectStore, tmp_path: Path) -> None:
        entry = await put(store, tmp_path)
        assert await store.read_range(entry.sha256, 1, 4) == SMALL[1:4]
        with pytest.raises(NotFound):
            await store.read_range("0" * 64, 0, 1)

    async def test_a_failed_materialize_leaves_nothing(self, store: ObjectStore, tmp_path: Path) -> None:
        entry = await put(store, tmp_path)
        missing = FileEntry(path="z/b", size=1, sha256="0" * 64)
        with pytest.raises(NotFound):
            await store.materialize([entry, missing], tmp_path / "out")
        assert not list(tmp_path.glob("out*"))

    async def test_a_directory_that_exists_is_left_alone(self, store: ObjectStore, tmp_path: Path) -> None:
        entry = await put(store, tmp_path)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").write_bytes(b"mine")
        with pytest.raises(Unavailable):
            await store.materialize([entry], tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
        assert not list(tmp_path.glob("out.part-*"))

    async def test_rivals_for_a_directory_do_not_disturb_each_other(self, store: ObjectStore, tmp_path: Path) -> None:
        files = [await put(store, tmp_path, os.urandom(100_000), name=f"d/{i}") for i in range(20)]
        results = await asyncio.gather(
            *(store.materialize(files, tmp_path / "out") for _ in range(4)), return_exceptions=True
        )
        winners = [result for result in results if result == tmp_path / "out"]
        assert len(winners) == 1
        assert all(isinstance(result, Unavailable) for result in results if result not in winners)
        for file in files:
            assert hash_file(tmp_path / "out" / file.path) == (file.sha256, file.size)
        assert not list(tmp_path.glob("out.part-*"))
