"""A store is tried before it is trusted: one of several writers of an object may win."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.s3.buckets import make_bucket
from tests.s3.conftest import BUCKET
from tests.s3.servers import Keys, NotRun, Server, swift
from tuneloom_common.database import open_database
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.creation import by_store, under
from tuneloom_common.objects.probe import require_atomic_create
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options
from tuneloom_registry.store import ObjectStoreRecord

pytestmark = pytest.mark.s3
SETTING = "TUNELOOM_REGISTRY_OBJECTS_PUT_IF_ABSENT"


@pytest.fixture(scope="session")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose If-None-Match lets several writers win."""
    environment = Path(__file__).parents[2] / ".venv-swift"
    try:
        with swift.serving(tmp_path_factory.mktemp("swift"), environment) as server:
            make_bucket(server, BUCKET)
            yield server
    except NotRun as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture
def careless_options(careless: Server, keys_file: Callable[[Keys], Path]) -> S3Options:
    return S3Options(endpoint=careless.endpoint, credentials_file=keys_file(careless.one), prefix="TUNELOOM_REGISTRY_")


@pytest.fixture
async def record(tmp_path: Path) -> AsyncIterator[ObjectStoreRecord]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path}/r.db", migrations="tuneloom_registry.migrations")
    yield ObjectStoreRecord(database)
    await database.dispose()


async def test_an_atomic_store_is_accepted(url: str, options: S3Options, record: ObjectStoreRecord) -> None:
    for _ in range(5):
        await require_atomic_create(S3(url, options).store, url=url, setting=SETTING)
    await ObjectStore(url, options).recognise(record, setting="-")


async def test_a_store_that_lets_several_win_is_refused(
    url: str, careless_options: S3Options, record: ObjectStoreRecord
) -> None:
    for _ in range(3):
        with pytest.raises(FailedPrecondition, match=f"{SETTING}=database") as caught:
            await ObjectStore(url, careless_options).recognise(record, setting="-")
        assert caught.value.reason == "STORE_NOT_ATOMIC"
    assert await S3(url, careless_options).identity() is None


async def test_with_a_lock_of_the_database_one_wins_there_too(
    url: str, careless_options: S3Options, record: ObjectStoreRecord
) -> None:
    store = S3(url, careless_options).store
    await ObjectStore(url, careless_options, lock=record.locked).recognise(record, setting="-")
    for _ in range(5):
        name, contents = f"x/{secrets.token_hex(4)}", [secrets.token_bytes(8) for _ in range(8)]
        create = under(record.locked)
        won = await asyncio.gather(*(create(store, name, content) for content in contents))
        assert won.count(True) == 1
        assert not await by_store(store, name, b"late")
