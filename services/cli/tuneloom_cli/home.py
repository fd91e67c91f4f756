"""The home directory of a local installation: where it stores, listens and keeps its keys."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tuneloom_common.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the services. Kept in connection.json, readable by its owner only."""

    registry: str
    trainer: str
    gateway: str
    engine_host: str
    service_token: str
    api_key: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the services."""

    gateway: int = 8000
    engine_host: int = 8010
    registry: int = 8021
    trainer: int = 8022


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
            stored = json.loads(self.connection_file.read_bytes())
        except FileNotFoundError:
            raise FailedPrecondition(
                f"nothing was ever started in {self.path}; run 'tuneloom up' first, or point TUNELOOM_HOME elsewhere"
            ) from None
        return Connection(**{field.name: stored[field.name] for field in fields(Connection)})  # a newer one has more

    def prepare(self, ports: Ports) -> Connection:
        """Creates the directory and the keys on first use; keys outlive restarts."""
        self.logs.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.connection_file.read_bytes()) if self.connection_file.exists() else {}
        connection = Connection(
            registry=f"127.0.0.1:{ports.registry}",
            trainer=f"127.0.0.1:{ports.trainer}",
            gateway=f"http://127.0.0.1:{ports.gateway}",
            engine_host=f"http://127.0.0.1:{ports.engine_host}",
            service_token=known.get("service_token") or secrets.token_urlsafe(32),
            api_key=known.get("api_key") or f"tl-{secrets.token_urlsafe(24)}",
        )
        staged = self.connection_file.with_suffix(".part")
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
            json.dump({**known, **asdict(connection)}, output, indent=1)
        staged.replace(self.connection_file)
        return connection
