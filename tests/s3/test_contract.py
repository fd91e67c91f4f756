"""The object store's contract, on a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import obstore
import pytest

from tests.object_store import ObjectStoreContract, put, read
from tuneloom_common.errors import DataLoss
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.settings import S3Options

pytestmark = pytest.mark.s3


@pytest.fixture
async def store(url: str, options: S3Options) -> ObjectStore:
    return await ObjectStore(url, options).create()


class TestContract(ObjectStoreContract): ...


async def test_what_is_stored_in_parts_is_what_is_read(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom((40 << 20) + 3)
    entry = await put(store, tmp_path, content)
    assert await store.has_blob(entry.sha256, size=len(content))
    assert await read(store, entry.sha256) == content
    assert (await store.materialize([entry], tmp_path / "out") / "a").read_bytes() == content
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("stored", [b"short", os.urandom(20 << 20)], ids=["far too short", "too short"])
async def test_a_large_blob_of_another_size_is_damaged_and_mended(
    store: ObjectStore, tmp_path: Path, stored: bytes
) -> None:
    content = os.urandom(40 << 20)
    entry = await put(store, tmp_path, content)
    await obstore.put_async(store._store, f"blobs/sha256/{entry.sha256}", stored)
    with pytest.raises(DataLoss, match="upload the file again"):
        await store.fetch(entry, tmp_path / "out")
    await put(store, tmp_path, content)
    await store.fetch(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
