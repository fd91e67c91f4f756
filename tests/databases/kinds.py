"""Databases of both kinds, for suites that run on each."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Protocol

from tests.databases import dumps
from tests.databases.cluster import Cluster
from tuneloom_common.database import open_database


class Databases(Protocol):
    """Every call makes a database and returns its URL."""

    name: str

    def empty(self) -> str: ...

    def migrated(self, service: str) -> str:
        """With the newest schema of a service, without a row."""
        ...

    def restored(self, dump: Path, service: str) -> str:
        """With what an earlier release wrote, in that release's schema."""
        ...

    def release(self) -> None:
        """Removes what was made."""
        ...


class Sqlite:
    name = "sqlite"

    def __init__(self, directory: Path, templates: Path) -> None:
        self._directory = directory
        self._templates = templates
        self._made = 0

    def empty(self) -> str:
        self._made += 1
        return _sqlite_url(self._directory / f"database-{self._made}.db")

    def migrated(self, service: str) -> str:
        template = self._templates / f"{service}.db"
        if not template.exists():
            _migrate(_sqlite_url(template), service)
            with closing(sqlite3.connect(template)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        url = self.empty()
        shutil.copy(template, url.partition(":///")[2])
        return url

    def restored(self, dump: Path, service: str) -> str:
        url = self.empty()
        with closing(sqlite3.connect(url.partition(":///")[2])) as database:
            database.executescript(dump.read_text("utf-8"))
        return url

    def release(self) -> None:
        """The directory is the test's own."""


class Postgres:
    name = "postgresql"

    def __init__(self, cluster: Cluster, templates: dict[str, str]) -> None:
        self._cluster = cluster
        self._templates = templates
        self._made: list[str] = []

    def empty(self) -> str:
        return self._new("template0")

    def migrated(self, service: str) -> str:
        if service not in self._templates:
            template = self._cluster.new_database()
            _migrate(self._cluster.url(template), service)
            self._templates[service] = template
        return self._new(self._templates[service])

    def restored(self, dump: Path, service: str) -> str:
        url = self.empty()
        dumps.restore(dump, url, service)
        return url

    def release(self) -> None:
        for name in self._made:
            self._cluster.drop(name)

    def _new(self, template: str) -> str:
        self._made.append(self._cluster.new_database(template=template))
        return self._cluster.url(self._made[-1])


def _sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _migrate(url: str, service: str) -> None:
    async def migrate() -> None:
        await (await open_database(url, migrations=f"tuneloom_{service}.migrations")).dispose()

    with ThreadPoolExecutor(1) as aside:  # an event loop may be running here
        aside.submit(lambda: asyncio.run(migrate())).result()
