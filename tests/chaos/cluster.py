"""Two trainers, two registries, a gateway and an engine host on one PostgreSQL and one S3 server, each way between
them a wire that can be cut, their files on a disk that can be full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.backends import Restarted, disk
from tests.chaos.installation import ANSWER_SECONDS, ENVIRONMENT, until_answered, until_gone
from tests.chaos.supervisor import write_plan
from tests.chaos.wires import Wire
from tests.databases.cluster import Cluster as Postgres
from tests.databases.cluster import running_cluster
from tests.e2e.conftest import free_ports
from tests.s3.buckets import make_bucket
from tests.s3.servers import Server, ceph
from tuneloom_cli.clients import Services, connect
from tuneloom_cli.local.home import Connection, Home, Ports
from tuneloom_cli.local.processes import Service, local_services

BUCKET, PREFIX = "chaos", "objects"
DISK_MEGABYTES = 3000


@dataclass
class Cluster:
    """`services` are those of the first replicas, `replicas` of each trainer with its registry."""

    home: Home
    connection: Connection
    postgres: Postgres
    s3: Server
    wires: list[Wire]
    disk: Path
    services: Services = field(init=False)
    replicas: list[Services] = field(init=False)
    _supervisor: subprocess.Popen[bytes] | None = None

    @property
    def objects(self) -> Restarted:
        return Restarted("radosgw", str(self.home.path.parent / "ceph"))

    async def up(self) -> None:
        """Starts the supervisor; returns when everything answers and the base model is there."""
        self._supervisor = await asyncio.to_thread(self._supervise)
        await self.answered()
        async with asyncio.timeout(ANSWER_SECONDS):
            while not (self.home.path / "ready").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def _supervise(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.chaos.supervisor", str(self.home.path)]
        with (self.home.logs / "up.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    async def down(self) -> list[int]:
        """Stops everything but the backends; the pids of what is left after a grace."""
        if self._supervisor is not None:
            self._supervisor.send_signal(signal.SIGTERM)
        return await self.gone()

    async def gone(self) -> list[int]:
        """The supervisor is our child: it is gone when it has been waited for."""
        return await until_gone(self.home.path, look=lambda: self._supervisor and self._supervisor.poll())

    async def answered(self) -> None:
        """Returns when every replica of every service answers."""
        await until_answered(self.replicas, look=self._require_supervisor)

    def _require_supervisor(self) -> None:
        assert self._supervisor is None or self._supervisor.poll() is None, "the supervisor has ended"


@asynccontextmanager
async def standing(directory: Path) -> AsyncIterator[Cluster]:
    """The backends, the wires, and a cluster that is not up yet."""
    settings = {**ENVIRONMENT, "TUNELOOM_TRAINER_SLOTS": "3"}  # room for what a frozen trainer held
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})
    async with AsyncExitStack() as stack:
        postgres, s3 = stack.enter_context(_backends(directory))
        home = Home(directory / "home")
        gateway, engine, *rest = free_ports(6)
        connection = home.prepare(Ports(gateway, engine, rest[0], rest[1]))
        second = replace(connection, registry=f"127.0.0.1:{rest[2]}", trainer=f"127.0.0.1:{rest[3]}")
        full = stack.enter_context(disk(home.path / "disk", megabytes=DISK_MEGABYTES))
        cluster = Cluster(home, connection, postgres, s3, [], full)
        plan = _Plan(cluster, second, s3.one.write(directory / "s3-keys"))
        try:
            write_plan(home, await plan.services())
            cluster.services = await stack.enter_async_context(connect(connection))
            cluster.replicas = [cluster.services, await stack.enter_async_context(connect(second))]
            yield cluster
        finally:
            for wire in cluster.wires:
                await wire.close()
            await asyncio.to_thread(cluster.objects.end)


class _Plan:
    """Every service's settings: its databases and peers through wires of its own, its files on the small disk."""

    def __init__(self, cluster: Cluster, second: Connection, credentials: Path) -> None:
        self._cluster = cluster
        self._second = second
        self._credentials = credentials
        self._databases = {name: cluster.postgres.new_database() for name in ("registry", "trainer")}

    async def services(self) -> list[Service]:
        first = {service.name: service for service in local_services(self._cluster.home, self._cluster.connection)}
        other = {service.name: service for service in local_services(self._cluster.home, self._second)}
        return [
            await self._wired(first["registry"], "registry-1"),
            await self._wired(other["registry"], "registry-2"),
            await self._wired(first["engine"], "engine"),
            await self._wired(first["trainer"], "trainer-1"),
            await self._wired(other["trainer"], "trainer-2"),
            await self._wired(first["gateway"], "gateway"),
        ]

    async def _wired(self, service: Service, name: str) -> Service:
        prefix = f"TUNELOOM_{service.name.upper()}_"
        own = self._cluster.disk / name
        changes: dict[str, str] = {}
        for setting, value in service.environment.items():
            match setting.removeprefix(prefix):
                case "REGISTRY_ADDRESS" | "ENGINE_HOST_URL":
                    changes[setting] = await self._address(name, setting.removeprefix(prefix), value)
                case "OBJECTS_URL":
                    changes |= await self._objects(name, prefix)
                case "DATABASE_URL":
                    changes[setting] = await self._database(name, service.name)
                case "WORK_DIR" | "CACHE_DIR":
                    changes[setting] = str(own)
                case "BLOB_CACHE_DIR":
                    changes[setting] = str(self._cluster.disk / "blobs")
        return Service(name, service.module, service.port, {**service.environment, **changes})

    async def _address(self, name: str, setting: str, address: str) -> str:
        peer = "registry" if setting == "REGISTRY_ADDRESS" else "engine"
        parts = urlsplit(address if "//" in address else f"//{address}")
        wire = await self._wire(f"{name} - {peer}", "127.0.0.1", parts.port or 0)
        return f"{parts.scheme}://127.0.0.1:{wire.port}" if parts.scheme else f"127.0.0.1:{wire.port}"

    async def _database(self, name: str, database: str) -> str:
        url = self._cluster.postgres.url(self._databases[database])
        parts = urlsplit(url)
        wire = await self._wire(f"{name} - postgresql", parts.hostname or "", parts.port or 0)
        return url.replace(f":{parts.port}/", f":{wire.port}/")

    async def _objects(self, name: str, prefix: str) -> Mapping[str, str]:
        parts = urlsplit(self._cluster.s3.endpoint)
        wire = await self._wire(f"{name} - s3", parts.hostname or "", parts.port or 0)
        return {
            f"{prefix}OBJECTS_URL": f"s3://{BUCKET}/{PREFIX}",
            f"{prefix}OBJECTS_ENDPOINT": f"http://127.0.0.1:{wire.port}",
            f"{prefix}OBJECTS_CREDENTIALS_FILE": str(self._credentials),
        }

    async def _wire(self, name: str, host: str, port: int) -> Wire:
        wire = Wire(name, host, port)
        await wire.open()
        self._cluster.wires.append(wire)
        return wire


@contextmanager
def _backends(directory: Path) -> Iterator[tuple[Postgres, Server]]:
    with running_cluster() as postgres, ceph.serving(directory / "ceph") as s3:
        make_bucket(s3, BUCKET)
        yield postgres, s3
