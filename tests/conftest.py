"""Databases of both kinds. PostgreSQL is a server of the session's own, started when the first test asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.databases.cluster import INSTALL, Cluster, binaries, running_cluster
from tests.databases.kinds import Databases, Postgres, Sqlite

KINDS = ("sqlite", "postgresql")
DISTURBANCES = 10


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    if binaries() is None:
        pytest.skip(f"NOT RUN: PostgreSQL is missing; {INSTALL}")
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def disturbed(postgres: Cluster) -> Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]:
    """Runs work while the server cuts every connection again and again, and is restarted in between."""

    async def disturbed(work: Callable[[], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work())
        times = 0
        while times < DISTURBANCES and not working.done():
            await asyncio.wait({working}, timeout=0.2)
            (postgres.restart if times % 5 == 2 else postgres.cut_all)()
            times += 1
        await working
        assert times > 3, "it was over before it was disturbed"

    return disturbed


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Migrated databases to be copied: the directory of SQLite's, the names of PostgreSQL's."""
    return tmp_path_factory.mktemp("templates"), {}


@pytest.fixture(params=KINDS)
def databases(
    request: pytest.FixtureRequest, tmp_path: Path, templates: tuple[Path, dict[str, str]]
) -> Iterator[Databases]:
    """A test that asks for them runs once on each kind."""
    files, names = templates
    made: Databases = (
        Sqlite(tmp_path, files) if request.param == "sqlite" else Postgres(request.getfixturevalue("postgres"), names)
    )
    yield made
    made.release()
