"""Two of each service as processes of their own, on one database and one object store, and nothing else in common.

They speak TLS, and show each other certificates, as in a cluster that trusts no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.authority import Authority, Files
from tuneloom_common.tls import PeerTls

TOKEN, KEY, NAME = "cluster-token", "cluster-key", "tuneloom.internal"
HERE = Path(__file__).parent
START_SECONDS = 60.0
LEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Backends:
    """What the services share. `environment` is what reaching the store takes, `files` is the certificate of all."""

    registry_database: str
    trainer_database: str
    objects: str
    authority: Authority
    files: Files
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def tls(self) -> PeerTls:
        """Of whoever calls a service."""
        return PeerTls(str(self.authority.path), self.files.pair, NAME, "TUNELOOM_TEST_")

    @property
    def listening(self) -> dict[str, str]:
        return {"TLS_CERTIFICATE": str(self.files.certificate), "TLS_KEY": str(self.files.key)}

    @property
    def calling(self) -> dict[str, str]:
        return {
            "REGISTRY_CA": str(self.authority.path),
            "REGISTRY_CERTIFICATE": str(self.files.certificate),
            "REGISTRY_KEY": str(self.files.key),
            "REGISTRY_SERVER_NAME": NAME,
        }


class Service:
    """One process and its log. `directory` is its own machine, as far as it knows."""

    def __init__(self, name: str, command: Sequence[str], port: int, directory: Path, settings: Mapping[str, str]):
        self.name = name
        self.port = port
        self.directory = directory
        self.log = directory / f"{name}.log"
        self._command = command
        self._environment = {**os.environ, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns at once; `await_answer` waits."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, cwd=self.directory
            )

    def await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise AssertionError(f"{self.name} did not start:\n{self.log.read_text()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.name} does not answer:\n{self.log.read_text()}")

    def twin(self) -> Service:
        """Another process for the same directory, on another port."""
        [port] = _free_ports(1)
        variable = next(name for name in self._environment if name.endswith("_PORT") and name.startswith("TUNELOOM_"))
        return Service(
            f"{self.name}-twin", self._command, port, self.directory, {**self._environment, variable: str(port)}
        )

    def await_end(self) -> int:
        assert self._process is not None
        return self._process.wait(START_SECONDS)

    def kill(self) -> None:
        """As a machine dies: with everything it started."""
        self._send(signal.SIGKILL)

    def end(self) -> int:
        self._send(signal.SIGTERM)
        assert self._process is not None
        return self._process.returncode

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """As a machine that stands still and goes on later as if nothing had been."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def revive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()
            self.await_answer()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)


@dataclass(frozen=True, slots=True)
class Cluster:
    """`gate`: while this file is there, transforms wait."""

    registries: tuple[Service, Service]
    trainers: tuple[Service, Service]
    gateways: tuple[Service, Service]
    gate: Path

    @property
    def services(self) -> tuple[Service, ...]:
        return (*self.registries, *self.trainers, *self.gateways)

    @property
    def registry(self) -> str:
        """Both, as a client is given them."""
        return several(self.registries)

    @property
    def trainer(self) -> str:
        return several(self.trainers)

    def runner_of(self, job: str) -> Service:
        """The trainer that a job's worker was started by last."""
        ran = [(each.directory / "work/runs" / job.rpartition("/")[2], each) for each in self.trainers]
        return max(((run / "spec.json").stat().st_mtime_ns, each.name, each) for run, each in ran if run.exists())[2]

    def other(self, service: Service) -> Service:
        pair = next(pair for pair in (self.registries, self.trainers, self.gateways) if service in pair)
        return pair[1 - pair.index(service)]


def several(services: Sequence[Service]) -> str:
    return "ipv4:" + ",".join(service.address for service in services)


@contextmanager
def running(directory: Path, backends: Backends) -> Iterator[Cluster]:
    """Starts everything, in the order in which it is needed, and ends it."""
    gate = directory / "gate"
    ports = _free_ports(7)
    registries = tuple(_registry(directory, number, next(ports), backends, gate) for number in (1, 2))
    addresses = several(registries)
    trainers = tuple(_trainer(directory, number, next(ports), backends, addresses) for number in (1, 2))
    engine = Service("engine", (sys.executable, str(HERE / "engine.py"), str(port := next(ports))), port, directory, {})
    gateways = tuple(
        _gateway(directory, number, next(ports), backends, registry, f"http://{engine.address}")
        for number, registry in enumerate((registries[1].address, addresses), start=1)
    )
    cluster = Cluster(registries, trainers, gateways, gate)  # type: ignore[arg-type] # two of each
    everything = (engine, *cluster.services)
    try:
        for service in everything:
            service.start()
        for service in everything:
            service.await_answer()
        yield cluster
    finally:
        for service in reversed(everything):
            service.kill()
        gate.unlink(missing_ok=True)


def _registry(directory: Path, number: int, port: int, backends: Backends, gate: Path) -> Service:
    build = [sys.executable, "-S", str(HERE / "transform.py"), str(gate)]
    return _service(
        "registry",
        directory / f"registry-{number}",
        port,
        backends.environment,
        **backends.listening,
        TLS_CLIENT_CA=str(backends.authority.path),
        TOKEN=TOKEN,
        DATABASE_URL=backends.registry_database,
        OBJECTS_URL=backends.objects,
        WORK_DIR="work",
        BLOB_CACHE_DIR="blobs",
        BUILD_COMMAND=json.dumps(build),
        BUILD_LEASE_SECONDS=str(LEASE_SECONDS),
    )


def _trainer(directory: Path, number: int, port: int, backends: Backends, registry: str) -> Service:
    worker = [sys.executable, "-S", str(HERE / "worker.py")]
    return _service(
        "trainer",
        directory / f"trainer-{number}",
        port,
        backends.environment,
        **backends.listening,
        TLS_CLIENT_CA=str(backends.authority.path),
        **backends.calling,
        TOKEN=TOKEN,
        DATABASE_URL=backends.trainer_database,
        OBJECTS_URL=backends.objects,
        REGISTRY_ADDRESS=registry,
        REGISTRY_TOKEN=TOKEN,
        WORK_DIR="work",
        BLOB_CACHE_DIR="blobs",
        WORKER_COMMAND=json.dumps(worker),
        LEASE_SECONDS=str(LEASE_SECONDS),
        SLOTS="2",
    )


def _gateway(directory: Path, number: int, port: int, backends: Backends, registry: str, engine: str) -> Service:
    return _service(
        "gateway",
        directory / f"gateway-{number}",
        port,
        {},
        **backends.listening,
        **backends.calling,
        API_KEY_SHA256S=hashlib.sha256(KEY.encode()).hexdigest(),
        REGISTRY_ADDRESS=registry,
        REGISTRY_TOKEN=TOKEN,
        ENGINE_URL=engine,
    )


def _service(what: str, directory: Path, port: int, environment: Mapping[str, str], **settings: str) -> Service:
    prefix = f"TUNELOOM_{what.upper()}_"
    values = {prefix + name: value for name, value in {"PORT": str(port), **settings}.items()}
    return Service(
        directory.name, (sys.executable, "-m", f"tuneloom_{what}"), port, directory, {**environment, **values}
    )


def _free_ports(count: int) -> Iterator[int]:
    """Kept until all are known, so that none is given twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return iter(ports)
