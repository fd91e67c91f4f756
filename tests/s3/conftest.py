"""A real S3 server for the whole run. Where none can be had, every test says so and counts as not run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.s3.buckets import make_bucket
from tests.s3.servers import Keys, NotRun, Server, ceph
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.requests import Patience
from tuneloom_common.objects.settings import S3Options

BUCKET = "tuneloom-tests"
QUICK = Patience(tries=4, first_seconds=0.02, most_seconds=0.1)
OpenStore = Callable[..., ObjectStore]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        with ceph.serving(tmp_path_factory.mktemp("ceph")) as server:
            make_bucket(server, BUCKET)
            yield server
    except NotRun as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture
def keys_file(tmp_path: Path) -> Callable[[Keys], Path]:
    """Writes a key pair as an operator would."""

    def write(keys: Keys) -> Path:
        return keys.write(tmp_path / f"keys-{secrets.token_hex(2)}")

    return write


@pytest.fixture
def options(server: Server, keys_file: Callable[[Keys], Path]) -> S3Options:
    return S3Options(endpoint=server.endpoint, credentials_file=keys_file(server.one), prefix="TUNELOOM_REGISTRY_")


@pytest.fixture
def url() -> str:
    """A store that nobody else uses."""
    return f"s3://{BUCKET}/stores/{secrets.token_hex(6)}"
