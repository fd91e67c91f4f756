"""A PostgreSQL server of the tests' own: private, on a free port, gone with whoever started it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

INSTALL = "install it with 'sudo apt-get install postgresql'"
USER, GROUP = "nobody", "nogroup"
UNPRIVILEGED = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]
# A commit is in the kernel's hands before it is acknowledged, so it outlives the server, though not the machine.
FAST = ["fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=400"]
START_SECONDS = 60.0


def binaries() -> Path | None:
    """The directory of the newest server that is installed; Debian does not put it on the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    places = [*debian, *([Path(found).parent] if found else [])]
    return next((place for place in places if (place / "postgres").exists() and (place / "initdb").exists()), None)


class Cluster:
    """Sorts as people do, not by bytes: what relies on the order of bytes is seen. Root cannot run it, so it drops to
    an unprivileged user."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._binaries = binaries
        self._directory = directory
        self._as = UNPRIVILEGED if os.geteuid() == 0 else ["setpriv", "--no-new-privs"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        (self._directory / "sockets").mkdir()
        if self._as is UNPRIVILEGED:
            for path in (self._directory, self._directory / "sockets"):
                shutil.chown(path, USER, GROUP)
        locale = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        initdb = [
            *self._as,
            self._binaries / "initdb",
            "-D",
            self._directory / "data",
            "-U",
            "tuneloom",
            "--auth=trust",
        ]
        made = subprocess.run([*initdb, "--no-sync", *locale], cwd="/", capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr}")

    def start(self) -> None:
        """Returns when it answers. It dies with the thread that started it, which should be the main one."""
        end = time.monotonic() + START_SECONDS
        while True:
            if self._server is None or self._server.poll() is not None:  # what it left behind may still be there
                self._server = self._launched()
            try:
                with self.admin():
                    return
            except psycopg.OperationalError as error:
                if time.monotonic() > end:
                    told = (self._directory / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL does not start ({error}): {told}") from error
            time.sleep(0.02)

    def _launched(self) -> subprocess.Popen[bytes]:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._directory}/sockets",
            *FAST,
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        # SIGQUIT is PostgreSQL's word for stopping at once.
        command = [*self._as, "--pdeathsig=QUIT", self._binaries / "postgres", "-D", self._directory / "data"]
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen([*command, *options], cwd="/", stdout=log, stderr=log)

    def stop(self) -> None:
        """At once, as `pg_ctl stop -m immediate`: what runs is lost, the next start recovers."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def restart(self) -> None:
        """As `pg_ctl restart -m immediate`."""
        self.stop()
        self.start()

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A connection that commits every statement."""
        with psycopg.connect(self._dsn(database), autocommit=True) as connection:
            yield connection

    def new_database(self, *, template: str = "template0") -> str:
        """Its name."""
        name = f"t{secrets.token_hex(6)}"
        with self.admin() as connection:
            made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
            connection.execute(made)
        return name

    def drop(self, database: str) -> None:
        with self.admin() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def cut(self, database: str) -> int:
        """Ends every connection to a database; how many there were."""
        ending = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
        with self.admin() as connection:
            row = connection.execute(ending, (database,)).fetchone()
        return int(row[0]) if row else 0

    def cut_all(self) -> None:
        """Ends every connection of clients."""
        with self.admin() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def url(self, database: str) -> str:
        return f"postgresql://tuneloom@127.0.0.1:{self.port}/{database}"

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=tuneloom dbname={database} connect_timeout=10"


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster in a temporary directory that an unprivileged user can reach."""
    found = binaries()
    if found is None:
        raise FileNotFoundError(f"PostgreSQL is missing; {INSTALL}")
    directory = Path(tempfile.mkdtemp(prefix="tuneloom-postgresql-"))
    cluster = Cluster(found, directory)
    try:
        cluster.create()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
