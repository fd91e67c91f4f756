"""Databases of both kinds. PostgreSQL is a server of the session's own, started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases.cluster import INSTALL, Cluster, binaries, running_cluster
from tests.databases.kinds import Databases, Postgres, Sqlite

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    if binaries() is None:
        pytest.skip(f"NOT RUN: PostgreSQL is missing; {INSTALL}")
    with running_cluster() as cluster:
        yield cluster


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
