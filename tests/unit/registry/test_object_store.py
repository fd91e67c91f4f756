"""A registry and the object store it belongs to, over restarts."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.unit.registry.conftest import OpenRegistry, Registry, blob_parts
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_common.grpc import translated
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import MARKER, hash_file


async def downloaded(registry: Registry, sha256: str) -> bytes:
    with translated("registry"):
        parts = registry.stub.DownloadBlob(pb.DownloadBlobRequest(sha256=sha256))
        return b"".join([part.chunk async for part in parts])


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
async def test_a_restart_while_the_disk_is_away_makes_no_new_store(
    open_registry: OpenRegistry, tmp_path: Path, left: str
) -> None:
    registry = await open_registry()
    await registry.register_base()
    entry = await registry.upload(b"weights")
    root, away = tmp_path / "objects", tmp_path / "away"
    root.rename(away)
    if left != "nothing":
        root.mkdir()
    again = await open_registry()
    for call in (again.upload(b"more"), downloaded(again, entry.sha256)):
        with pytest.raises(Unavailable, match="mount its disk"), translated("registry"):
            await call
    assert not root.exists() or not list(root.iterdir())
    if root.exists():
        root.rmdir()
    away.rename(root)
    assert await downloaded(again, entry.sha256) == b"weights"
    await again.upload(b"more")


async def test_a_store_of_an_earlier_release_is_marked(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """One had no marker at all, one an empty one; its database knows versions."""
    marker = tmp_path / "objects" / MARKER
    await (await open_registry()).register_base()
    for change in (marker.unlink, lambda: marker.write_text("")):
        change()
        _forget(tmp_path / "registry.db")
        again = await open_registry()
        assert marker.read_text()
        sha256, _ = hash_file(next((tmp_path / "objects/blobs/sha256").iterdir()))
        assert await downloaded(again, sha256)


async def test_an_earlier_releases_database_makes_no_new_store(open_registry: OpenRegistry, tmp_path: Path) -> None:
    await (await open_registry()).register_base()
    shutil.rmtree(tmp_path / "objects")
    _forget(tmp_path / "registry.db")
    again = await open_registry()
    with pytest.raises(Unavailable, match="mount its disk"), translated("registry"):
        await again.upload(b"more")


async def test_another_store_in_its_place_is_refused(open_registry: OpenRegistry, tmp_path: Path) -> None:
    await open_registry()
    await open_registry(database_url=f"sqlite+aiosqlite:///{tmp_path}/other.db", objects_url=f"file://{tmp_path}/other")
    with pytest.raises(FailedPrecondition, match="TUNELOOM_REGISTRY_OBJECTS_URL"):
        await open_registry(objects_url=f"file://{tmp_path}/other")


async def test_a_store_that_is_swapped_while_the_registry_runs_is_not_used(
    open_registry: OpenRegistry, tmp_path: Path
) -> None:
    registry = await open_registry()
    entry = FileEntry(path="a", size=5, sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    (tmp_path / "objects" / MARKER).write_text("0123456789abcdef")
    with pytest.raises(Unavailable, match="another object store"), translated("registry"):
        await registry.stub.UploadBlob(blob_parts(entry, b"hello"))


async def test_several_registries_begin_one_store(open_registry: OpenRegistry, tmp_path: Path) -> None:
    one, two = await open_registry(), await open_registry()
    entry = await one.upload(b"hello")
    assert await downloaded(two, entry.sha256) == b"hello"
    assert len((tmp_path / "objects" / MARKER).read_text()) == 16


def _forget(database: Path) -> None:
    """As a database is that an earlier release wrote."""
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM object_store")
    connection.close()
