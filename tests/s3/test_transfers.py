"""Large blobs over a bad line: what has arrived is not sent again, and what is wrong is never used."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.object_store import put, read
from tests.s3.conftest import QUICK
from tests.s3.proxy import Harm, Proxy, proxying
from tests.s3.servers import Server
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.errors import Unavailable
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.downloads import RANGE_BYTES, RANGES, partial
from tuneloom_common.objects.requests import Patience, Requests, Slice
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options
from tuneloom_common.objects.uploads import PART_BYTES

pytestmark = pytest.mark.s3
PARTS = 4
SIZE = PARTS * PART_BYTES - 1000
RANGE_COUNT = -(-SIZE // RANGE_BYTES)
PART, RANGE = "partNumber=", "blobs/sha256/"


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxying(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy, url: str, options: S3Options) -> ObjectStore:
    made = await ObjectStore(url, replace(options, endpoint=proxy.endpoint), patience=QUICK).create()
    proxy.seen.clear()
    return made


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


def entry_of(content: bytes) -> FileEntry:
    return FileEntry(path="a", size=len(content), sha256=hashlib.sha256(content).hexdigest())


class After:
    """Does harm to every request of a kind after some have passed."""

    def __init__(self, harm: Harm, method: str, part: str, passing: int) -> None:
        self._harm: Harm = harm
        self._kind = method, part
        self._left = passing

    def __call__(self, method: str, path: str) -> Harm:
        if method == self._kind[0] and self._kind[1] in path:
            self._left -= 1
            return self._harm if self._left < 0 else None
        return None


class EverySecond:
    """Does harm to every second request of whatever kind, and so to no repetition of it."""

    def __init__(self, harm: Harm) -> None:
        self._harm = harm
        self._harmed: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str) -> Harm:
        key = (method, path)
        self._harmed ^= {key}
        return self._harm if key in self._harmed else None


@pytest.mark.parametrize("harm", ["503", "500", "drop", "cut"])
async def test_a_failure_that_passes_is_not_noticed(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, content: bytes, harm: Harm
) -> None:
    proxy.harm = EverySecond(harm)
    entry = await put(store, tmp_path, content)
    await store.put_manifest(Manifest(kind="dataset", files=(entry,)))
    assert (await store.materialize([entry], tmp_path / "out") / "a").read_bytes() == content


@pytest.mark.parametrize("harm", ["503", "drop"])
async def test_a_storm_ends_in_an_error_that_says_what_to_do(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, content: bytes, harm: Harm
) -> None:
    entry = await put(store, tmp_path, content)
    proxy.harm = lambda method, path: harm
    began = time.monotonic()
    for call in (
        lambda: put(store, tmp_path, os.urandom(SIZE)),
        lambda: put(store, tmp_path, b"small"),
        lambda: read(store, entry.sha256),
        lambda: store.materialize([entry], tmp_path / "out"),
        lambda: store.put_manifest(Manifest(kind="dataset", files=(entry,))),
    ):
        with pytest.raises(Unavailable) as caught:
            await call()
        if harm == "503":
            assert caught.value.reason == "OBJECTS_FAILING"
            assert "answers SlowDown" in caught.value.message or "answers 503" in caught.value.message
        else:
            assert caught.value.reason == "OBJECTS_UNREACHABLE"
            assert "TUNELOOM_REGISTRY_OBJECTS_ENDPOINT" in caught.value.message
    assert time.monotonic() - began < 30
    assert not list(tmp_path.glob("out*"))
    proxy.forget()
    assert await read(store, entry.sha256) == content


async def test_an_interrupted_upload_goes_on_with_the_parts_that_are_there(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, content: bytes
) -> None:
    proxy.harm = After("503", "PUT", PART, passing=2)
    with pytest.raises(Unavailable):
        await put(store, tmp_path, content)
    assert not await store.has_blob(entry_of(content).sha256, size=SIZE)
    proxy.forget()
    entry = await put(store, tmp_path, content)
    assert proxy.count("PUT", PART) == PARTS - 2
    assert await read(store, entry.sha256) == content


async def test_a_cancelled_upload_goes_on_too(
    store: ObjectStore, proxy: Proxy, url: str, options: S3Options, tmp_path: Path, content: bytes
) -> None:
    stubborn = Patience(tries=200, first_seconds=0.05, most_seconds=0.1)
    patient = ObjectStore(url, replace(options, endpoint=proxy.endpoint), patience=stubborn)
    proxy.harm = After("503", "PUT", PART, passing=3)
    work = asyncio.create_task(put(patient, tmp_path, content))
    while sum(PART in path for _, path in proxy.passed) < 3:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    proxy.forget()
    entry = await put(store, tmp_path, content)
    assert proxy.count("PUT", PART) == PARTS - 3
    assert await read(store, entry.sha256) == content


async def test_parts_of_something_else_are_not_used(
    store: ObjectStore, proxy: Proxy, url: str, options: S3Options, tmp_path: Path, content: bytes
) -> None:
    """Somebody has begun this blob's upload with other bytes of the right length."""
    place, name, requests = S3(url, options), f"blobs/sha256/{entry_of(content).sha256}", Requests()
    wrong = tmp_path / "wrong"
    wrong.write_bytes(os.urandom(PART_BYTES))
    with wrong.open("rb", buffering=0) as file:
        upload = place.bucket.begin(requests, name)
        place.bucket.put_part(requests, name, upload, 1, Slice(file, 0, PART_BYTES))
    requests.close()
    entry = await put(store, tmp_path, content)
    assert proxy.count("PUT", PART) == PARTS
    assert await read(store, entry.sha256) == content


async def test_two_may_upload_the_same_at_once(store: ObjectStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "shared"
    path.write_bytes(content)
    one, two = await asyncio.gather(store.put_file(path, name="a"), store.put_file(path, name="a"))
    assert one == two
    assert await read(store, one.sha256) == content


async def test_an_interrupted_download_goes_on_from_what_is_on_the_disk(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, content: bytes
) -> None:
    entry = await put(store, tmp_path, content)
    cache = BlobCache(store, tmp_path / "cache")
    proxy.forget()
    proxy.harm = After("cut", "GET", RANGE, passing=3)
    with pytest.raises(Unavailable):
        await cache.materialize([entry], tmp_path / "out")
    proxy.forget()
    out = await cache.materialize([entry], tmp_path / "out")
    assert (out / "a").read_bytes() == content
    assert proxy.count("GET", RANGE) == RANGE_COUNT - 3
    assert [p.name for p in (tmp_path / "cache").iterdir() if "fetching" in p.name] == []


@pytest.mark.parametrize("journal", ["0\n1\n2\n", "0\nnonsense", ""])
async def test_wrong_bytes_on_the_disk_are_fetched_again(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, content: bytes, journal: str
) -> None:
    entry, target = await put(store, tmp_path, content), tmp_path / "target"
    part = partial(target)
    part.write_bytes(bytes(SIZE))
    part.with_name(part.name + RANGES).write_text(journal)
    await store.fetch(entry, target)
    assert target.read_bytes() == content


async def test_a_cancelled_download_leaves_no_thread_behind(
    store: ObjectStore, proxy: Proxy, url: str, options: S3Options, tmp_path: Path, content: bytes
) -> None:
    stubborn = Patience(tries=200, first_seconds=0.05, most_seconds=0.1)
    patient = ObjectStore(url, replace(options, endpoint=proxy.endpoint), patience=stubborn)
    entry = await put(store, tmp_path, content)
    proxy.harm = After("503", "GET", RANGE, passing=2)
    work = asyncio.create_task(patient.fetch(entry, tmp_path / "target"))
    while proxy.count("GET", RANGE) < 4:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download")]
    assert not (tmp_path / "target").exists()


async def test_uploads_that_nobody_goes_on_with_are_dropped_and_others_kept(
    store: ObjectStore, url: str, options: S3Options
) -> None:
    requests, name = Requests(), "blobs/sha256/old"

    def in_days(days: int) -> S3:
        return S3(url, options, clock=lambda: datetime.now(UTC) + timedelta(days=days))

    place = S3(url, options)
    place.bucket.begin(requests, name)
    for later, left in ((6, 1), (8, 0)):
        # Signing with that clock would be refused: only the judgement is made then.
        swept = in_days(later)
        swept.bucket = place.bucket
        await swept.sweep()
        assert [begun.name for begun in place.bucket.uploads(requests, "blobs/")] == [name] * left
    requests.close()
