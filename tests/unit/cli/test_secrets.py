"""The secrets of a deployment: what each service is told, and nothing of the others."""

from __future__ import annotations

import configparser
import json
import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Say
from tuneloom_cli.deployment import OBJECTS_CREDENTIALS, Backends, write_secrets
from tuneloom_cli.local.home import Addresses, Connection, Home, Ports, write_private
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.principals import PrincipalEntry, Principals
from tuneloom_common.settings import SECRETS_DIR, load
from tuneloom_gateway.settings import Settings as GatewaySettings
from tuneloom_registry.settings import RegistrySettings
from tuneloom_trainer.settings import TrainerSettings

ADDRESSES = Addresses("http://gateway:8000", "http://engine:8010", "registry:8021", "trainer:8022")


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return Home(tmp_path / "home").connect_to(ADDRESSES)


def text(directory: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(directory.rglob("*")) if path.is_file())


def test_each_service_reads_its_own_directory(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(tmp_path, connection, Backends(postgres="postgres:5432"))
    monkeypatch.setenv("TUNELOOM_REGISTRY_OBJECTS_URL", "memory://")
    monkeypatch.setenv("TUNELOOM_TRAINER_OBJECTS_URL", "memory://")
    monkeypatch.setenv("TUNELOOM_GATEWAY_ENGINE_HOST_URL", "http://127.0.0.1:8010")
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path / "registry"))
    registry = Principals(load(RegistrySettings).principals)
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path / "trainer"))
    trainer = load(TrainerSettings)
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path / "gateway"))
    gateway = load(GatewaySettings)
    assert trainer.registry_token is not None
    assert gateway.registry_token is not None
    writes = registry.find(trainer.registry_token.get_secret_value().encode())
    reads = registry.find(gateway.registry_token.get_secret_value().encode())
    assert writes is not None
    assert "registry:write" in writes.scopes
    assert reads is not None
    assert reads.scopes == {"registry:read"}


def test_no_service_finds_another_ones_secrets(tmp_path: Path, connection: Connection) -> None:
    write_secrets(tmp_path, connection, Backends(postgres="postgres:5432", s3=True))
    keys = connection.keys
    assert keys is not None
    own = {"trainer": keys.trainer, "engine": keys.engine, "gateway": keys.gateway}
    for service in ("registry", "trainer", "engine", "gateway", "postgres", "s3"):
        found = text(tmp_path / service)
        assert connection.service_token not in found
        assert connection.api_key not in found
        assert {name for name, token in own.items() if token in found} == {service} & own.keys()


def test_everything_is_its_owners_alone_and_kept(tmp_path: Path, connection: Connection) -> None:
    directory, backends = tmp_path / "secrets", Backends(postgres="postgres:5432", s3=True)
    assert write_secrets(directory, connection, backends)
    before = text(directory)
    assert write_secrets(directory, connection, backends) == []
    assert text(directory) == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*") if path.is_file()} == {0o600}


def test_what_was_open_to_others_is_closed(tmp_path: Path, connection: Connection) -> None:
    directory = tmp_path / "secrets"
    first = write_secrets(directory, connection, Backends(s3=True))
    for path in (directory, *directory.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        path.chmod(0o755)
    (directory / "s3" / "secret-key").chmod(0o644)
    assert write_secrets(directory, connection, Backends(s3=True)) == [directory / "s3" / "secret-key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in first} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755  # what is in it is closed; it may be anybody's, /tmp too


def test_secrets_follow_no_links(tmp_path: Path, connection: Connection) -> None:
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "secrets"
    elsewhere.mkdir()
    (written, *_) = write_secrets(directory, connection, Backends())
    written.rename(elsewhere / "same")
    written.symlink_to(elsewhere / "same")
    assert write_secrets(directory, connection, Backends()) == [written]
    assert not written.is_symlink()
    (directory / "s3").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(FailedPrecondition, match=r"s3 is a link.*remove it"):
        write_secrets(directory, connection, Backends(s3=True))
    assert [path.name for path in elsewhere.iterdir()] == ["same"]


def test_nothing_that_was_prepared_gets_a_secret(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    theirs.chmod(0o644)
    (tmp_path / "connection.part").symlink_to(theirs)
    (tmp_path / "token.part").write_text("")
    (tmp_path / "token.part").chmod(0o666)
    for name in ("connection.json", "token"):
        write_private(tmp_path / name, "secret")
        assert stat.S_IMODE((tmp_path / name).lstat().st_mode) == 0o600
    assert theirs.read_text() == ""
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_private(tmp_path / "taken", "secret")
    assert not list(tmp_path.glob(".*"))  # nothing half-made stays


def test_the_database_and_the_store_get_one_secret_with_their_users(tmp_path: Path, connection: Connection) -> None:
    write_secrets(tmp_path, connection, Backends(postgres="postgres:5432", s3=True))
    urls = {
        name: (tmp_path / name / f"TUNELOOM_{name.upper()}_DATABASE_URL").read_text()
        for name in ("registry", "trainer")
    }
    for name, url in urls.items():
        password = (tmp_path / "postgres" / name).read_text()
        assert url == f"postgresql://{name}:{password}@postgres:5432/{name}"
    assert len(set(urls.values())) == 2
    file = configparser.ConfigParser()
    file.read(tmp_path / "engine" / OBJECTS_CREDENTIALS)
    assert file["default"]["aws_secret_access_key"] == (tmp_path / "s3" / "secret-key").read_text()


def test_the_command_leaves_a_connection_for_the_machine_itself(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(tmp_path / "home"))
    assert "secrets written" in say("secrets", str(tmp_path / "secrets"), "--published", "1,2,3").stdout
    again = say("secrets", str(tmp_path / "secrets"), "--published", "1,2,3").stdout
    assert "up to date" in " ".join(again.split())  # a long path wraps
    inside, outside = Home(tmp_path / "home").connection(), Home(tmp_path / "home" / "loopback").connection()
    assert (inside.registry, outside.registry) == ("registry:8021", "127.0.0.1:2")
    assert outside.gateway == "http://127.0.0.1:1"
    assert (inside.api_key, inside.service_token) == (outside.api_key, outside.service_token)


def test_a_home_of_the_first_release_keeps_its_keys(tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "contract" / "golden" / "0.1.0" / "home" / "connection.json"
    home = Home(tmp_path)
    home.connection_file.write_bytes(golden.read_bytes())
    connection = home.connect_to(ADDRESSES)
    then = json.loads(golden.read_bytes())
    assert (connection.api_key, connection.service_token) == (then["api_key"], then["service_token"])
    write_secrets(tmp_path / "secrets", connection, Backends())
    entries = json.loads((tmp_path / "secrets/registry/TUNELOOM_REGISTRY_PRINCIPALS").read_text())
    found = Principals(PrincipalEntry.model_validate(one) for one in entries).find(then["service_token"].encode())
    assert found is not None
    assert found.id == "owner"


def test_loopback_is_where_the_ports_are() -> None:
    assert Addresses.on_loopback(Ports(gateway=1)).gateway == "http://127.0.0.1:1"
