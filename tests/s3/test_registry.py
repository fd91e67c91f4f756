"""A registry whose objects are in a bucket: what is uploaded, registered and built."""

from __future__ import annotations

import os

import pytest

from tests.unit.registry.calls import download
from tests.unit.registry.conftest import *  # noqa: F403 - fixtures
from tests.unit.registry.conftest import GOOD_ROW, OpenRegistry, rows
from tests.unit.registry.test_runner import GOOD, building, command, outcome, queue
from tuneloom_common.names import VersionName
from tuneloom_common.objects.settings import S3Options
from tuneloom_registry.builds import BuildState

pytestmark = pytest.mark.s3


async def test_what_is_registered_and_built_is_in_the_bucket(
    open_registry: OpenRegistry, url: str, options: S3Options
) -> None:
    where = {"objects_endpoint": options.endpoint, "objects_credentials_file": options.credentials_file}
    registry = await open_registry(objects_url=url, build_command=command(GOOD), **where)
    content = os.urandom(20 << 20)
    entry = await registry.upload(content)
    assert await download(registry, entry.sha256) == content
    await registry.register("datasets/chats", "dataset", {"a.jsonl": rows(GOOD_ROW)})
    build = await queue(registry)
    async with building(registry):
        done = await outcome(registry, build)
    assert (done.state, done.error) == (BuildState.SUCCEEDED, "")
    version = await registry.app.versions.get_version(VersionName.parse("models/out/versions/1"))
    for file in version.manifest.files:
        assert await registry.app.objects.holds(file.sha256, size=file.size)
    assert await registry.app.objects.read_manifest(version.digest) == version.manifest
