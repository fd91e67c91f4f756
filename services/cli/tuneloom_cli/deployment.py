"""What each service of a deployment must be told in secret: one directory per service, one file per setting.

The owner's connection.json holds the keys of our own services, which everything here is made from again. The passwords
of PostgreSQL and S3 are only here: both have to be backed up. Files are called like the variables they stand for
(TUNELOOM_SECRETS_DIR), and are readable by their owner only.
"""

from __future__ import annotations

import configparser
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneloom_cli.local.home import PRIVATE_DIRECTORY, PRIVATE_FILE, Connection, write_private
from tuneloom_cli.local.keys import Keys, principals
from tuneloom_common.errors import FailedPrecondition

OBJECTS_CREDENTIALS = "objects-credentials"
"""Key pair of the object store, in the form of ~/.aws/credentials."""
ACCESS_KEY, SECRET_KEY = "access-key", "secret-key"
WITH_DATABASE = ("registry", "trainer")
STORING = ("registry", "trainer", "engine")
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Backends:
    """Servers that a deployment runs itself, and that get their secrets here. `postgres` is its host:port; each service
    has a role and a database, both called like it."""

    postgres: str = ""
    s3: bool = False


def write_secrets(directory: Path, connection: Connection, backends: Backends) -> list[Path]:
    """Writes what differs from what is there, and returns those files. Passwords that exist are kept."""
    directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
    written = []
    for path, text in _secrets(directory, connection, backends):
        _make_private(path.parent)
        if not _is_private(path) or path.read_text() != text:
            write_private(path, text)
            written.append(path)
    return written


def _make_private(directory: Path) -> None:
    """A service's directory, for its owner alone also where it was there before."""
    if directory.is_symlink():
        raise FailedPrecondition(f"{directory} is a link, and secrets follow none; remove it and run this again")
    directory.mkdir(exist_ok=True, mode=PRIVATE_DIRECTORY)
    found = directory.stat()
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != PRIVATE_DIRECTORY:
        directory.chmod(PRIVATE_DIRECTORY)


def _is_private(path: Path) -> bool:
    """Whether a file of ours is there that nobody else may read: no link to one."""
    if not path.exists():
        return False
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) and stat.S_IMODE(mode) == PRIVATE_FILE


def _secrets(directory: Path, connection: Connection, backends: Backends) -> Iterator[tuple[Path, str]]:
    for service, settings in _of_services(connection).items():
        for setting, value in settings.items():
            yield directory / service / f"TUNELOOM_{service.upper()}_{setting}", value
    if backends.postgres:
        yield directory / "postgres" / "postgres", _kept(directory / "postgres" / "postgres")
        for service in WITH_DATABASE:
            password = _kept(directory / "postgres" / service)
            yield directory / "postgres" / service, password
            url = f"postgresql://{service}:{password}@{backends.postgres}/{service}"
            yield directory / service / f"TUNELOOM_{service.upper()}_DATABASE_URL", url
    if backends.s3:
        pair = {name: _kept(directory / "s3" / name) for name in (ACCESS_KEY, SECRET_KEY)}
        for name, value in pair.items():
            yield directory / "s3" / name, value
        yield directory / "s3" / "seaweedfs.json", _seaweedfs(pair)
        for service in STORING:
            yield directory / service / OBJECTS_CREDENTIALS, _credentials(pair)


def _of_services(connection: Connection) -> Mapping[str, Mapping[str, str]]:
    keys = connection.keys or Keys.stored({})

    def known(service: str) -> str:
        return json.dumps(principals(service, owner=connection.service_token, keys=keys))

    return {
        "registry": {"PRINCIPALS": known("registry")},
        "trainer": {"PRINCIPALS": known("trainer"), "REGISTRY_TOKEN": keys.trainer},
        "engine": {"PRINCIPALS": known("engine"), "REGISTRY_TOKEN": keys.engine},
        "gateway": {
            "REGISTRY_TOKEN": keys.gateway,
            "ENGINE_HOST_TOKEN": keys.gateway_engine,
            "API_KEY_SHA256S": hashlib.sha256(connection.api_key.encode()).hexdigest(),
        },
    }


def _kept(path: Path) -> str:
    """What is there, or something fresh of letters and digits: it goes into URLs and files of other programs."""
    return path.read_text() if path.exists() else secrets.token_hex(SECRET_BYTES)


def _credentials(pair: Mapping[str, str]) -> str:
    file = configparser.ConfigParser()
    file["default"] = {"aws_access_key_id": pair[ACCESS_KEY], "aws_secret_access_key": pair[SECRET_KEY]}
    text = io.StringIO()
    file.write(text)
    return text.getvalue()


def _seaweedfs(pair: Mapping[str, str]) -> str:
    """The same pair as SeaweedFS wants to be told."""
    credentials = [{"accessKey": pair[ACCESS_KEY], "secretKey": pair[SECRET_KEY]}]
    actions = ["Admin", "Read", "Write", "List"]
    return json.dumps({"identities": [{"name": "tuneloom", "credentials": credentials, "actions": actions}]})
