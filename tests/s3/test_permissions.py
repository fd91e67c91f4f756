"""What somebody without a key may do at the store, with a URL that was given to them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.object_store import put, read
from tests.s3.conftest import QUICK
from tests.s3.proxy import Proxy, proxying
from tests.s3.servers import Server
from tests.s3.test_atomicity import careless, careless_options  # noqa: F401 - fixtures
from tests.unit.trainer.conftest import *  # noqa: F403 - fixtures
from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tests.unit.trainer.test_remote import CALLER, FarLauncher, client
from tests.unit.trainer.test_runner import run_dir, running, submit, until_state
from tuneloom_common.errors import InvalidArgument, PermissionDenied, Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore, permissions
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options
from tuneloom_common.queue import Lease
from tuneloom_trainer.jobs import JobState
from tuneloom_trainer.launchers.local import LocalLauncher

pytestmark = pytest.mark.s3
BY_PERMISSION = re.compile("blobs/.*X-Amz-Signature")
CONTENT = os.urandom(300_000)
FILE = FileEntry(path="a", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def strict(server: Server) -> Iterator[Proxy]:
    """The server as it would be if it refused what a permission does not name."""
    with proxying(server.endpoint) as proxy:
        proxy.strict = True
        yield proxy


@pytest.fixture
async def store(url: str, options: S3Options, strict: Proxy) -> ObjectStore:
    return await ObjectStore(url, replace(options, endpoint=strict.endpoint)).create()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


async def granted(permission: Any) -> Permission:
    given = await permission
    assert isinstance(given, Permission)
    return given


async def test_a_permission_stores_one_content_and_no_other(store: ObjectStore, path: Path) -> None:
    permission = await granted(store.permit_upload(FILE, seconds=60))
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(Unavailable) as caught:
        await permissions.upload(permission, path, patience=QUICK)
    assert permission.url not in str(caught.value)
    assert not await store.has_blob(FILE.sha256, size=FILE.size)
    path.write_bytes(CONTENT)
    await permissions.upload(permission, path, patience=QUICK)
    assert await read(store, FILE.sha256) == CONTENT


async def test_a_permission_for_one_blob_is_none_for_another_or_for_anything_else(
    store: ObjectStore, path: Path, tmp_path: Path
) -> None:
    await store.put_file(path, name="a")
    other = await put(store, tmp_path, b"other")
    reading = await granted(store.permit_download(FILE, seconds=60))
    for url in (
        reading.url.replace(FILE.sha256, other.sha256),
        reading.url.replace("X-Amz-Expires=60", "X-Amz-Expires=99"),
    ):
        with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
            await permissions.download(replace(reading, url=url), FILE, tmp_path / "out", patience=QUICK)
    with pytest.raises(Unavailable):
        await permissions.upload(reading, path, patience=QUICK)
    await permissions.download(reading, FILE, tmp_path / "out", patience=QUICK)
    assert (tmp_path / "out").read_bytes() == CONTENT


async def test_a_permission_ends(store: ObjectStore, path: Path) -> None:
    permission = await granted(store.permit_upload(FILE, seconds=1))
    await asyncio.sleep(2.5)
    with pytest.raises(Unavailable):
        await permissions.upload(permission, path, patience=QUICK)


async def test_no_secret_is_in_a_permissions_text(store: ObjectStore) -> None:
    permission = await granted(store.permit_upload(FILE, seconds=60))
    assert "X-Amz" not in repr(permission)


async def test_what_s3_takes_in_no_single_request_goes_another_way(store: ObjectStore) -> None:
    assert await store.permit_upload(FILE.model_copy(update={"size": 6 << 30}), seconds=60) is None


@pytest.mark.parametrize("header", ["x-amz-copy-source", "x-amz-acl"])
async def test_a_server_that_obeys_what_a_permission_does_not_name_gives_none_to_store(
    url: str, options: S3Options, path: Path, tmp_path: Path, header: str
) -> None:
    place, store = S3(url, options), await ObjectStore(url, options).create()
    other = await put(store, tmp_path, b"another team's")
    given = await place.permit_upload("blobs/x", sha256=FILE.sha256, size=FILE.size, seconds=60)
    stretched = place.bucket.permission("PUT", "blobs/x", seconds=60, sha256=FILE.sha256)
    assert stretched is not None
    value = "public-read"
    if header == "x-amz-copy-source":
        value = place.bucket.source(f"blobs/sha256/{other.sha256}")
        path.write_bytes(b"")
    obeyed = True
    try:
        more = {**stretched.headers, header: value}
        await permissions.upload(replace(stretched, headers=more), path, patience=QUICK)
    except Unavailable:
        obeyed = False
    assert obeyed, f"this server refuses {header} now: it may be given permissions, docs/object-storage.md says no"
    assert given is None
    assert await store.permit_upload(FILE, seconds=60) is None


async def test_a_server_that_takes_any_content_gives_no_permission_to_store(
    url: str,
    careless_options: S3Options,  # noqa: F811
) -> None:
    """Or it does refuse other bytes and headers: then it may."""
    place = S3(url, careless_options)
    given = await place.permit_upload("blobs/x", sha256=FILE.sha256, size=FILE.size, seconds=60)
    assert (given is not None) == place._binds


@pytest.fixture
async def stored(url: str, options: S3Options, tmp_path: Path) -> FakeRegistry:
    registry = FakeRegistry(await ObjectStore(url, options).create(), tmp_path / "staging")
    await registry.publish("seed", "base", {"config.json": b'{"model_type": "qwen2"}'})
    await registry.publish("datasets/chats", "dataset", {"chats.jsonl": b"{}"})
    return registry


@pytest.fixture
async def registry(stored: FakeRegistry) -> FakeRegistry:
    return stored


def far(app: Any) -> Any:
    parts = app.runner._parts
    assert isinstance(parts.launcher, LocalLauncher)
    app.runner._parts = replace(parts, launcher=FarLauncher(parts.launcher, app))
    return app


async def on_s3(build_app: BuildApp, url: str, options: S3Options, **more: Any) -> Any:
    return far(
        await build_app(
            objects_url=url,
            objects_endpoint=options.endpoint,
            objects_credentials_file=options.credentials_file,
            **more,
        )
    )


@pytest.mark.parametrize(
    "way", ["by permission", "through the trainer", "the store is out of reach", "the store obeys too much"]
)
async def test_a_far_workers_checkpoints_reach_the_bucket(
    build_app: BuildApp, server: Server, stored: FakeRegistry, url: str, options: S3Options, tmp_path: Path, way: str
) -> None:
    with proxying(server.endpoint) as proxy:
        proxy.strict = way != "the store obeys too much"
        by_proxy = replace(options, endpoint=proxy.endpoint)
        app = await on_s3(build_app, url, by_proxy, worker_permission_seconds=0 if way == "through the trainer" else 60)
        if way == "the store is out of reach":
            proxy.harm = lambda method, path: "drop" if BY_PERMISSION.search(path) else None
        async with running(app):
            job = await submit(app, stored, "succeed")
            await until_state(app, job, JobState.SUCCEEDED)
        by_permission = proxy.count("PUT", BY_PERMISSION.pattern)
    assert (by_permission > 0) == (way in ("by permission", "the store is out of reach"))
    log = (run_dir(tmp_path, job) / "remote.log").read_text()
    assert ("goes through the trainer" in log) == (way == "the store is out of reach")
    assert "X-Amz" not in log


async def test_a_worker_may_read_what_its_attempt_needs_and_nothing_else(
    build_app: BuildApp, stored: FakeRegistry, url: str, options: S3Options, tmp_path: Path
) -> None:
    app = await on_s3(build_app, url, options, principals=(CALLER,))
    secret = await put(stored.objects, tmp_path, b"another team's weights")
    job = await submit(app, stored, "succeed")
    base = (await stored.objects.read_manifest((await app.store.get(job.id)).base.digest)).files
    with app.inboxes.open(Lease(job.id, 1)) as inbox:
        async with client(app, inbox.token) as trainer:
            (given,) = await trainer.permit_downloads(job.id, lease_epoch=1, files=base[:1])
            assert given is not None
            await permissions.download(given, base[0], tmp_path / "config", patience=QUICK)
            with pytest.raises(PermissionDenied, match="may not read it"):
                await trainer.permit_downloads(job.id, lease_epoch=1, files=[base[0], secret])
            with pytest.raises(PermissionDenied):
                await trainer.permit_downloads(job.id, lease_epoch=2, files=base)
            with pytest.raises(InvalidArgument, match="at most 100"):
                await trainer.permit_uploads(job.id, lease_epoch=1, files=[FILE] * 101)
            inbox.goes_on_from = frozenset({secret.sha256})
            assert await trainer.permit_downloads(job.id, lease_epoch=1, files=[secret])
            assert await trainer.permit_uploads(job.id, lease_epoch=1, files=[secret]) == ["stored"]
    assert (tmp_path / "config").read_bytes() == b'{"model_type": "qwen2"}'
