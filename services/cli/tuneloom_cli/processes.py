"""The processes of a local installation: what runs, with which settings, in which order."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from tuneloom_cli.home import Connection, Home

# Where services meet: all of them and the connection file must agree.
FIXED = frozenset({"HOST", "PORT", "TOKEN", "REGISTRY_TOKEN", "REGISTRY_ADDRESS", "ENGINE_HOST_URL", "API_KEY_SHA256S"})


@dataclass(frozen=True, slots=True)
class Service:
    """One service process. `setting` names the option of `up` that moves it to another port."""

    name: str
    module: str
    port: int
    environment: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module]

    @property
    def setting(self) -> str:
        return f"--{self.name}-port"


def local_services(home: Home, connection: Connection) -> list[Service]:
    """Everything `up` starts, in start order. What the user set in the environment wins, but for `FIXED`."""
    registry, trainer = connection.registry, connection.trainer
    token, objects = connection.service_token, home.objects_url
    shared = {"OBJECTS_URL": objects, "REGISTRY_ADDRESS": registry, "REGISTRY_TOKEN": token}
    return [
        _service(home, "registry", registry, TOKEN=token, OBJECTS_URL=objects, WORK_DIR=str(home.path / "registry")),
        _service(home, "engine", connection.engine_host, **shared, **_engine(home)),
        _service(home, "trainer", trainer, TOKEN=token, WORK_DIR=str(home.path / "trainer"), **shared),
        _service(
            home,
            "gateway",
            connection.gateway,
            REGISTRY_ADDRESS=registry,
            REGISTRY_TOKEN=token,
            API_KEY_SHA256S=hashlib.sha256(connection.api_key.encode()).hexdigest(),
            ENGINE_HOST_URL=connection.engine_host,
        ),
    ]


def engine_python() -> Path:
    """The interpreter of the engine environment: TUNELOOM_ENGINE_PYTHON, or .venv-engine beside this one."""
    configured = os.environ.get("TUNELOOM_ENGINE_PYTHON")
    return Path(configured) if configured else Path(sys.prefix).parent / ".venv-engine" / "bin" / "python"


def seed_directory() -> Path:
    """The base model that comes with Tuneloom."""
    packaged = Path(__file__).parent / "seed"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "models" / "seed" / "weights"


def _service(home: Home, name: str, address: str, **settings: str) -> Service:
    port = urlparse(address if "//" in address else f"//{address}").port or 0
    prefix = f"TUNELOOM_{name.upper()}_"
    values = {"HOST": "127.0.0.1", "PORT": str(port), **settings}
    if name in ("registry", "trainer"):
        values["DATABASE_URL"] = f"sqlite+aiosqlite:///{home.path}/{name}.db"
    environment = {
        prefix + key: value for key, value in values.items() if key in FIXED or prefix + key not in os.environ
    }
    return Service(name, f"tuneloom_{name}", port, environment)


def _engine(home: Home) -> dict[str, str]:
    return {
        "PYTHON": str(engine_python()),
        "CACHE_DIR": str(home.path / "engine"),
        "LOG_DIR": str(home.logs),
    }
