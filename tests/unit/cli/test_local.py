"""A local installation: its home, its keys, its processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Say
from tuneloom_cli.local.home import Home, Ports
from tuneloom_cli.local.keys import SCOPES
from tuneloom_cli.local.processes import Service, local_services
from tuneloom_cli.local.supervision import answering, check_ports, keep
from tuneloom_cli.local.up import running_pid
from tuneloom_common.errors import FailedPrecondition, InvalidArgument
from tuneloom_common.principals import PrincipalEntry, Principals


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def services_of(home: Home, ports: Ports | None = None) -> dict[str, Service]:
    return {service.name: service for service in local_services(home, home.prepare(ports or Ports()))}


def known_to(service: Service) -> Principals:
    entries = json.loads(service.environment[f"TUNELOOM_{service.name.upper()}_PRINCIPALS"])
    return Principals(PrincipalEntry.model_validate(entry) for entry in entries)


def may(service: Service, token: str) -> set[str]:
    """The scopes a service grants a token."""
    found = known_to(service).find(token.encode())
    return set(found.scopes) if found else set()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_and_outlive_restarts(home: Home) -> None:
    first = home.prepare(Ports())
    second = home.prepare(Ports(gateway=9999))
    assert (second.api_key, second.service_token, second.keys) == (first.api_key, first.service_token, first.keys)
    assert second.gateway.endswith(":9999")
    assert home.connection() == second


def test_only_the_owner_can_look_into_a_home(home: Home) -> None:
    home.path.mkdir(mode=0o755)
    home.logs.mkdir(mode=0o755)
    files = [home.path / "trainer.db", home.path / "registry.db-wal", home.logs / "gateway.log"]
    for file in files:
        file.touch(mode=0o644)
    home.prepare(Ports())
    assert mode(home.path) == mode(home.logs) == 0o700
    assert {mode(file) for file in (*files, home.connection_file)} == {0o600}


def test_a_home_of_the_first_release_gets_keys_and_keeps_its_token(home: Home) -> None:
    home.path.mkdir()
    old = {
        "registry": "127.0.0.1:8021", "trainer": "127.0.0.1:8022", "gateway": "http://127.0.0.1:8000",
        "engine_host": "http://127.0.0.1:8010", "service_token": "old-token", "api_key": "tl-old",
    }  # fmt: skip
    home.connection_file.write_text(json.dumps(old))
    assert home.connection().keys is None
    services = services_of(home)
    connection = home.connection()
    assert (connection.service_token, connection.api_key) == ("old-token", "tl-old")
    assert connection.keys is not None
    assert may(services["registry"], "old-token") == {"registry:read", "registry:write"}
    assert may(services["trainer"], "old-token") == {"trainer:read", "trainer:write"}


def test_each_service_holds_its_own_token_and_may_do_what_it_needs(home: Home) -> None:
    services = services_of(home)
    sent = {
        name: service.environment.get(f"TUNELOOM_{name.upper()}_REGISTRY_TOKEN") for name, service in services.items()
    }
    assert sent["registry"] is None
    trainer, gateway, engine = (sent[name] or "" for name in ("trainer", "gateway", "engine"))
    to_engines = services["gateway"].environment["TUNELOOM_GATEWAY_ENGINE_HOST_TOKEN"]
    assert len({trainer, gateway, engine, to_engines, home.connection().service_token}) == 5
    registry = services["registry"]
    assert may(registry, trainer) == {"registry:read", "registry:write", "registry:fence"}
    assert may(registry, gateway) == may(registry, engine) == {"registry:read"}
    assert may(registry, to_engines) == set()
    assert may(services["engine"], to_engines) == {"engines:use"}
    assert may(services["engine"], gateway) == may(services["engine"], engine) == set()
    assert may(services["trainer"], trainer) == may(services["trainer"], gateway) == set()
    assert not [scope for doors in SCOPES.values() for scopes in doors.values() for scope in scopes if scope == "admin"]


def test_no_service_gets_another_ones_secrets(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_TRAINER_WORKER_DEVICE", "cpu")
    monkeypatch.setenv("TUNELOOM_REGISTRY_TOKEN", "exported")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    services = services_of(home)
    connection = home.connection()
    assert connection.keys is not None
    for service in services.values():
        prefix = f"TUNELOOM_{service.name.upper()}_"
        ours = {name for name in service.environment if name.startswith("TUNELOOM_")} - {"TUNELOOM_HOME"}
        assert {name for name in ours if not name.startswith(prefix)} == set()
        values = service.environment.values()
        assert {connection.api_key, connection.service_token, "exported", "theirs"}.isdisjoint(values)
        assert not [
            value for value in (connection.api_key, connection.service_token) if value in " ".join(service.command)
        ]
        assert ("AWS_SECRET_ACCESS_KEY" in service.environment) == (service.name != "gateway")
    assert services["trainer"].environment["TUNELOOM_TRAINER_WORKER_DEVICE"] == "cpu"
    hashed = hashlib.sha256(connection.api_key.encode()).hexdigest()
    assert services["gateway"].environment["TUNELOOM_GATEWAY_API_KEY_SHA256S"] == hashed


def test_principals_of_the_user_are_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"id": "ci", "token_sha256": hashlib.sha256(b"ci-token").hexdigest(), "scopes": ["registry:read"]}
    monkeypatch.setenv("TUNELOOM_REGISTRY_PRINCIPALS", json.dumps([mine]))
    registry = services_of(home)["registry"]
    assert may(registry, "ci-token") == {"registry:read"}
    assert may(registry, home.connection().service_token)
    monkeypatch.setenv("TUNELOOM_REGISTRY_PRINCIPALS", "nonsense")
    with pytest.raises(InvalidArgument, match="TUNELOOM_REGISTRY_PRINCIPALS"):
        services_of(home)


def test_services_of_one_home_share_their_blobs(home: Home) -> None:
    kept = {
        service.environment.get(f"TUNELOOM_{name.upper()}_BLOB_CACHE_DIR")
        for name, service in services_of(home).items()
    }
    assert kept == {str(home.path / "blobs"), None}  # the gateway has none


def test_the_environment_wins_over_the_defaults(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_ENGINE_CACHE_DIR", "/elsewhere")
    assert services_of(home)["engine"].environment["TUNELOOM_ENGINE_CACHE_DIR"] == "/elsewhere"


def test_an_exported_port_does_not_split_the_installation(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_TRAINER_PORT", "1")
    assert services_of(home)["trainer"].environment["TUNELOOM_TRAINER_PORT"] == "8022"


def test_a_taken_port_is_named_with_the_option_that_moves_it(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=rf"port {port}, wanted by the trainer.*--trainer-port"):
            check_ports([services_of(home, Ports(trainer=port))["trainer"]])


def test_two_services_cannot_have_one_port(home: Home) -> None:
    services = services_of(home, Ports(gateway=18999, engine_host=18999, registry=18998, trainer=18997))
    with pytest.raises(FailedPrecondition, match="wanted by the engine and the gateway"):
        check_ports(list(services.values()))


def test_nothing_runs_in_an_empty_home(home: Home, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(home.path))
    assert running_pid(home) is None
    assert "nothing is running" in say("down").output
    for command in (("key",), ("models", "list"), ("chat", "seed")):
        with pytest.raises(FailedPrecondition, match="tuneloom up"):
            say(*command)


def test_key_prints_what_to_send(home: Home, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(home.path))
    connection = home.prepare(Ports())
    assert say("key").output.strip() == connection.api_key
    assert say("key", "--grpc").output.strip() == connection.service_token


def service(code: str, port: int = 0) -> Service:
    class Scripted(Service):
        @property
        def command(self) -> list[str]:
            return [sys.executable, "-S", "-c", code]

    return Scripted("registry", "none", port, {"MARK": "here"})


async def test_a_service_that_dies_is_started_again_until_it_keeps_dying(tmp_path: Path, capsys: Any) -> None:
    log = tmp_path / "registry.log"
    with pytest.raises(FailedPrecondition, match=r"(?s)registry does not stay up \(status 7\).*here"):
        await keep(service("import os; print(os.environ['MARK'], flush=True); os._exit(7)"), log, pause_seconds=0)
    assert log.read_text().split() == ["here"] * 6
    assert capsys.readouterr().out.count("starting it again") == 5


async def test_tests_that_kill_may_allow_more_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_UP_RESTARTS_PER_MINUTE", "7")
    log = tmp_path / "registry.log"
    with pytest.raises(FailedPrecondition, match="does not stay up"):
        await keep(service("print('here', flush=True); raise SystemExit(7)"), log, pause_seconds=0)
    assert log.read_text().split() == ["here"] * 8


async def test_bad_settings_are_not_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "registry.log"
    with pytest.raises(FailedPrecondition, match="status 2"):
        await keep(service("print('bad'); raise SystemExit(2)"), log, pause_seconds=0)
    assert log.read_text() == "bad\n"


async def test_a_started_service_is_waited_for_and_stopped(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        f"import os, socket; s = socket.create_server(('127.0.0.1', {port}));"
        "print(os.getpid(), os.umask(0), flush=True)\n"
        "while True: s.accept()"
    )
    log = tmp_path / "registry.log"
    keeper = asyncio.create_task(keep(service(code, port), log))
    await answering(service(code, port), keeper)
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper
    pid, umask = log.read_text().split()
    assert int(umask) == 0o077
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_a_service_that_never_answers_is_told_by_its_own_words(tmp_path: Path) -> None:
    dying = service("print('no disk'); raise SystemExit(2)")
    keeper = asyncio.create_task(keep(dying, tmp_path / "log"))
    with pytest.raises(FailedPrecondition, match="no disk"):
        await answering(dying, keeper)
