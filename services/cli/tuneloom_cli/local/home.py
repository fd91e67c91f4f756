"""The home directory of a local installation: where it stores and listens. Readable by its owner only."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuneloom_cli.local.keys import Keys
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.tls import PeerTls

PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600
STORED = ("registry", "trainer", "gateway", "engine_host", "service_token", "api_key", "keys")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the services, and with what. Kept in connection.json.

    `service_token` is the owner's: what the command line sends to registry, trainer and engine host. `keys` are
    those of the services among each other; None in a home that 0.1.0 made, until `up` runs again.
    """

    registry: str
    trainer: str
    gateway: str
    engine_host: str
    service_token: str
    api_key: str
    keys: Keys | None = field(default=None)
    registry_tls: PeerTls | None = field(default=None)
    """Of services elsewhere, like the next; never stored: a home's own meet on loopback in plain text."""
    trainer_tls: PeerTls | None = field(default=None)
    elsewhere: bool = field(default=False)
    """Whether TUNELOOM_CLI_… variables name these services."""

    @classmethod
    def stored(cls, values: dict[str, Any]) -> Connection:
        """From connection.json; what a newer release added is left aside."""
        known = {name: values[name] for name in STORED if name in values and name != "keys"}
        return cls(**known, keys=Keys.stored(values["keys"]) if values.get("keys") else None)


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the services."""

    gateway: int = 8000
    engine_host: int = 8010
    registry: int = 8021
    trainer: int = 8022


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services are called: host:port of gRPC, URLs of HTTP."""

    gateway: str
    engine_host: str
    registry: str
    trainer: str

    @classmethod
    def on_loopback(cls, ports: Ports) -> Addresses:
        return cls(
            gateway=f"http://127.0.0.1:{ports.gateway}",
            engine_host=f"http://127.0.0.1:{ports.engine_host}",
            registry=f"127.0.0.1:{ports.registry}",
            trainer=f"127.0.0.1:{ports.trainer}",
        )


@dataclass(frozen=True, slots=True)
class Home:
    """TUNELOOM_HOME, by default ~/.tuneloom."""

    path: Path

    @classmethod
    def locate(cls) -> Home:
        return cls(Path(os.environ.get("TUNELOOM_HOME") or Path.home() / ".tuneloom").absolute())

    @property
    def connection_file(self) -> Path:
        return self.path / "connection.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "up.lock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def objects_url(self) -> str:
        return f"file://{self.path}/objects"

    def connection(self) -> Connection:
        """How to reach the services of this home; raises FailedPrecondition when it was never started."""
        try:
            return Connection.stored(json.loads(self.connection_file.read_bytes()))
        except FileNotFoundError:
            raise FailedPrecondition(
                f"nothing was ever started in {self.path}; run 'tuneloom up' first, or point TUNELOOM_HOME elsewhere"
            ) from None

    def prepare(self, ports: Ports) -> Connection:
        """Creates the directory and the keys on first use; keys outlive restarts."""
        return self.connect_to(Addresses.on_loopback(ports))

    def connect_to(self, addresses: Addresses) -> Connection:
        """Keeps how these services are reached, with the keys of this home or, on first use, fresh ones."""
        self.make_private()
        known = json.loads(self.connection_file.read_bytes()) if self.connection_file.exists() else {}
        connection = Connection(
            **asdict(addresses),
            service_token=known.get("service_token") or secrets.token_urlsafe(32),
            api_key=known.get("api_key") or f"tl-{secrets.token_urlsafe(24)}",
            keys=Keys.stored(known.get("keys") or {}),
        )
        self.keep({**known, **stored(connection)})
        return connection

    def keep(self, connection: dict[str, Any]) -> None:
        """Writes connection.json."""
        self.path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
        write_private(self.connection_file, json.dumps(connection, indent=1))

    def make_private(self) -> None:
        """Creates the directory for its owner alone, and closes what an earlier release left open to others."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(PRIVATE_DIRECTORY)
        self.logs.mkdir(exist_ok=True)
        self.logs.chmod(PRIVATE_DIRECTORY)
        for pattern in ("*.db*", "*.json", "up.lock", "logs/*.log"):
            for file in self.path.glob(pattern):
                file.chmod(PRIVATE_FILE)


def stored(connection: Connection) -> dict[str, Any]:
    """What of a connection is kept."""
    values = asdict(connection)
    return {name: values[name] for name in STORED}


def write_private(path: Path, text: str) -> None:
    """All of it or nothing, and for the owner's eyes from its first byte."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")  # a name nobody can have prepared
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(staged, flags, PRIVATE_FILE), "w") as output:
            output.write(text)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
