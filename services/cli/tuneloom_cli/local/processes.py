"""The processes of a local installation: what runs, with which settings, in which order."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from tuneloom_cli.local.home import Connection, Home
from tuneloom_cli.local.keys import Keys, principals_setting

# Where services meet: all of them and the connection file must agree.
FIXED = frozenset(
    {"HOST", "PORT", "TOKEN", "PRINCIPALS", "REGISTRY_TOKEN", "REGISTRY_ADDRESS", "ENGINE_HOST_URL",
     "ENGINE_HOST_TOKEN", "API_KEY_SHA256S", "TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA", "REGISTRY_CA",
     "REGISTRY_CERTIFICATE", "REGISTRY_KEY", "REGISTRY_SERVER_NAME", "ENGINE_HOST_CA", "ENGINE_HOST_CERTIFICATE",
     "ENGINE_HOST_KEY", "ENGINE_HOST_SERVER_NAME"}
)  # fmt: skip
# What a service gets of the user's environment besides its own settings.
SHARED = {
    "registry": ("AWS_", "PG", "OTEL_"),
    "trainer": ("AWS_", "PG", "OTEL_"),
    "engine": ("AWS_", "OTEL_"),
    "gateway": ("OTEL_",),
}


@dataclass(frozen=True, slots=True)
class Service:
    """One service process. `environment` is what it gets besides a child's safe one; `setting` names the option of
    `up` that moves it to another port."""

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
    keys = connection.keys or Keys.stored({})
    registry, objects, blobs = connection.registry, home.objects_url, str(home.path / "blobs")

    def known(service: str) -> str:
        configured = os.environ.get(f"TUNELOOM_{service.upper()}_PRINCIPALS", "")
        return principals_setting(service, owner=connection.service_token, keys=keys, configured=configured)

    return [
        _service(
            "registry",
            registry,
            PRINCIPALS=known("registry"),
            OBJECTS_URL=objects,
            WORK_DIR=str(home.path / "registry"),
            BLOB_CACHE_DIR=blobs,
            DATABASE_URL=_database(home, "registry"),
        ),
        _service(
            "engine",
            connection.engine_host,
            PRINCIPALS=known("engine"),
            OBJECTS_URL=objects,
            REGISTRY_ADDRESS=registry,
            REGISTRY_TOKEN=keys.engine,
            PYTHON=str(engine_python()),
            CACHE_DIR=str(home.path / "engine"),
            BLOB_CACHE_DIR=blobs,
            LOG_DIR=str(home.logs),
        ),
        _service(
            "trainer",
            connection.trainer,
            PRINCIPALS=known("trainer"),
            OBJECTS_URL=objects,
            REGISTRY_ADDRESS=registry,
            REGISTRY_TOKEN=keys.trainer,
            WORK_DIR=str(home.path / "trainer"),
            BLOB_CACHE_DIR=blobs,
            DATABASE_URL=_database(home, "trainer"),
        ),
        _service(
            "gateway",
            connection.gateway,
            REGISTRY_ADDRESS=registry,
            REGISTRY_TOKEN=keys.gateway,
            API_KEY_SHA256S=hashlib.sha256(connection.api_key.encode()).hexdigest(),
            ENGINE_HOST_URL=connection.engine_host,
            ENGINE_HOST_TOKEN=keys.gateway_engine,
        ),
    ]


def engine_python() -> Path:
    """The interpreter of the engine environment: TUNELOOM_ENGINE_PYTHON, or .venv-engine beside this one."""
    configured = os.environ.get("TUNELOOM_ENGINE_PYTHON")
    return Path(configured) if configured else Path(sys.prefix).parent / ".venv-engine" / "bin" / "python"


def seed_directory() -> Path:
    """The base model that comes with Tuneloom."""
    packaged = Path(__file__).parents[1] / "seed"
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "models" / "seed" / "weights"


def _service(name: str, address: str, **settings: str) -> Service:
    port = urlparse(address if "//" in address else f"//{address}").port or 0
    prefix = f"TUNELOOM_{name.upper()}_"
    ours = {prefix + key: value for key, value in {"HOST": "127.0.0.1", "PORT": str(port), **settings}.items()}
    fixed = {prefix + key for key in FIXED}
    theirs = {
        variable: value
        for variable, value in os.environ.items()
        if variable.startswith((prefix, *SHARED[name], "TUNELOOM_HOME")) and variable not in fixed
    }
    return Service(name, f"tuneloom_{name}", port, {**ours, **theirs})


def _database(home: Home, name: str) -> str:
    return f"sqlite+aiosqlite:///{home.path}/{name}.db"
