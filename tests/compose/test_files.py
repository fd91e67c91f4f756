"""The files of deploy/compose as compose reads them; no image is needed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.stack import COMPOSE, reader
from tuneloom_common.settings import SECRETS_DIR, load
from tuneloom_gateway.settings import Settings as GatewaySettings

FILES = {
    "sqlite": ("compose.yaml",),
    "cluster": ("compose.yaml", "cluster.yaml"),
    "public": ("compose.yaml", "cluster.yaml", "public.yaml"),
}
PULLED = {"TUNELOOM_POSTGRES_IMAGE": "postgres@sha256:0", "TUNELOOM_S3_IMAGE": "seaweedfs@sha256:0"}


def read(names: Iterable[str], **variables: str) -> dict[str, Any]:
    """What compose makes of the files, tools included."""
    command = reader()
    if command is None:
        pytest.skip("NOT RUN: no compose here; install docker-compose 1.29 or newer")
    files = [part for name in names for part in ("-f", str(COMPOSE / name))]
    tools = () if command[0] == "docker-compose" else ("--profile", "tools")
    done = subprocess.run(
        [*command, *files, *tools, "config"],
        env={**os.environ, **PULLED, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


@pytest.fixture(params=FILES)
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(FILES[request.param])


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert 0 < service["pids_limit"] <= 4096, name
        assert service["logging"] == {"driver": "json-file", "options": {"max-file": "3", "max-size": "10m"}}, name
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert len(service["tmpfs"]) == len(set(service["tmpfs"])), name


def test_only_the_gateway_may_leave_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"gateway", "registry", "trainer"}
    assert all("127.0.0.1" in str(ports) for ports in published.values())


@pytest.mark.parametrize(
    ("variables", "starts"),
    [
        ({}, True),
        ({"TUNELOOM_GATEWAY_BIND": "0.0.0.0"}, False),
        ({"TUNELOOM_GATEWAY_BIND": "0.0.0.0", "TUNELOOM_GATEWAY_BEHIND_TLS_PROXY": "true"}, True),
    ],
)
def test_the_gateway_leaves_loopback_with_tls_only(
    variables: dict[str, str], starts: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = read(("compose.yaml",), **variables)["gateway"]
    assert variables.get("TUNELOOM_GATEWAY_BIND", "127.0.0.1") in str(gateway["ports"])
    told = {name: str(value) for name, value in gateway["environment"].items() if name != SECRETS_DIR}
    for name, value in (told | {"TUNELOOM_GATEWAY_HOST": "0.0.0.0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNELOOM_GATEWAY_API_KEY_SHA256S", "0" * 64)
    if starts:
        assert load(GatewaySettings).host == "0.0.0.0"
        return
    with pytest.raises(SystemExit) as stopped:
        load(GatewaySettings)
    assert stopped.value.code == 2
    assert "TUNELOOM_GATEWAY_PUBLISHED: 0.0.0.0 lets other machines connect" in capsys.readouterr().err


def test_each_service_sees_its_own_secrets_and_no_other(services: dict[str, Any]) -> None:
    owners = {"builder": "registry", "worker": "trainer"}
    for name, service in services.items():
        seen = set(re.findall(r"secrets-(\w+)", str(service.get("volumes", ""))))
        if name == "secrets":
            assert seen
        else:
            assert seen <= {owners.get(name, name)}, name


def test_who_reaches_the_outside(services: dict[str, Any]) -> None:
    out = {name for name, service in services.items() if "published" in service.get("networks", ())}
    assert out == {"registry", "trainer", "gateway"}
    alone = {name: service["network_mode"] for name, service in services.items() if "network_mode" in service}
    assert alone == {"secrets": "none", "import": "none"} | ({"bucket": "service:s3"} if "bucket" in services else {})


def test_of_seaweedfs_only_s3_is_reached_by_others() -> None:
    public = read(FILES["public"])
    bound = [argument for argument in public["s3"]["command"] if argument.startswith("-") and "ip" in argument]
    assert bound == ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"]
    assert "-master=127.0.0.1:9333" in str(public["bucket"]["entrypoint"])


def test_what_can_be_set_is_in_the_example() -> None:
    used = set()
    for path in COMPOSE.glob("*.yaml"):
        used |= set(re.findall(r"\$\{(TUNELOOM_\w+)", Path(path).read_text("utf-8")))
    told = set(re.findall(r"^#(TUNELOOM_\w+)=", (COMPOSE / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert used - told == {"TUNELOOM_POSTGRES_IMAGE", "TUNELOOM_S3_IMAGE", "TUNELOOM_OBJECTS_PUT_IF_ABSENT"}
    assert told <= used
