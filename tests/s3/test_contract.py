"""The object store's contract, on a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.object_store import ObjectStoreContract, put, read
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
