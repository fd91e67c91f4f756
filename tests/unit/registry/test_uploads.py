"""Bytes on their way in and out."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.calls import LARGE, blobs, download, refused, staged
from tests.unit.registry.conftest import OpenRegistry, Registry, blob_parts
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2
from tuneloom_common.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from tuneloom_common.manifests import FileEntry


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "tiny", "large"])
async def test_an_upload_comes_back_byte_for_byte(registry: Registry, tmp_path: Path, content: bytes) -> None:
    entry = await registry.upload(content, chunk=300_000)
    assert await download(registry, entry.sha256) == content
    assert staged(tmp_path) == []


async def test_uploading_again_writes_nothing(registry: Registry, tmp_path: Path) -> None:
    entry = await registry.upload(LARGE)
    blob = tmp_path / "objects/blobs/sha256" / entry.sha256
    before = blob.stat().st_mtime_ns
    assert (await registry.upload(LARGE)) == entry
    assert blob.stat().st_mtime_ns == before


async def test_the_same_upload_may_run_twice_at_once(registry: Registry, tmp_path: Path) -> None:
    entries = await asyncio.gather(*(registry.upload(LARGE) for _ in range(3)))
    assert blobs(tmp_path) == [entries[0].sha256]
    assert await download(registry, entries[0].sha256) == LARGE


async def test_an_upload_larger_than_the_limit_is_refused_before_it_is_sent(open_registry: OpenRegistry) -> None:
    registry = await open_registry(max_upload_bytes=4)
    error = await refused(registry.upload(b"hello"), InvalidArgument)
    assert error.field == "blob.size_bytes"
    assert "TUNELOOM_REGISTRY_MAX_UPLOAD_BYTES" in error.message


async def test_an_upload_that_stalls_is_ended(open_registry: OpenRegistry, tmp_path: Path) -> None:
    registry = await open_registry(upload_idle_seconds=0.1)

    async def parts() -> Any:
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=hashlib.sha256(b"hello").hexdigest(), size_bytes=5))
        yield pb.UploadBlobRequest(chunk=b"he")
        await asyncio.Event().wait()

    error = await refused(registry.stub.UploadBlob(parts()), Unavailable)
    assert error.reason == "TIMEOUT"
    assert staged(tmp_path) == []


@pytest.mark.parametrize(
    ("announced", "size"),
    [(b"other", 5), (b"hello", 4), (b"hello", 6), (b"hello", 0), (b"hello", -1)],
    ids=["wrong-hash", "too-long", "too-short", "announced-empty", "negative"],
)
async def test_what_differs_from_the_announcement_is_refused(
    registry: Registry, tmp_path: Path, announced: bytes, size: int
) -> None:
    async def parts() -> Any:
        digest = hashlib.sha256(announced).hexdigest()
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=digest, size_bytes=size))
        for letter in b"hello":
            yield pb.UploadBlobRequest(chunk=bytes([letter]))

    error = await refused(registry.stub.UploadBlob(parts()), InvalidArgument)
    assert error.field == "blob"
    assert blobs(tmp_path) == staged(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
async def test_a_hash_that_is_none_reaches_no_path(registry: Registry, sha256: str) -> None:
    async def parts() -> Any:
        yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=sha256, size_bytes=1))

    assert (await refused(registry.stub.UploadBlob(parts()), InvalidArgument)).field == "blob.sha256"
    assert (await refused(download(registry, sha256), InvalidArgument)).field == "sha256"


async def test_an_upload_starts_with_its_announcement(registry: Registry) -> None:
    async def nothing() -> Any:
        return
        yield

    async def only_bytes() -> Any:
        yield pb.UploadBlobRequest(chunk=b"x")

    for parts in (nothing, only_bytes):
        assert (await refused(registry.stub.UploadBlob(parts()), InvalidArgument)).field == "blob.sha256"


async def test_a_cut_upload_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    sent = asyncio.Event()
    entry = FileEntry(path="a", size=len(LARGE), sha256=hashlib.sha256(LARGE).hexdigest())

    async def parts() -> Any:
        async for part in blob_parts(entry, LARGE[:2_000_000]):
            yield part
        sent.set()
        await asyncio.Event().wait()

    call = registry.stub.UploadBlob(parts())
    await asyncio.wait_for(sent.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        while staged(tmp_path):  # noqa: ASYNC110 - a directory has no event
            await asyncio.sleep(0.005)
    assert blobs(tmp_path) == []
    await registry.upload(LARGE)


async def test_a_missing_and_a_damaged_blob_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    await refused(download(registry, "0" * 64), NotFound)
    entry = await registry.upload(b"hello")
    next((tmp_path / "objects").rglob(entry.sha256)).write_bytes(b"jello")
    await refused(download(registry, entry.sha256), DataLoss)
