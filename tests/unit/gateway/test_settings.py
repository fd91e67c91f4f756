"""Settings that are wrong are named at the start."""

from __future__ import annotations

import hashlib
import json
import socket

import pytest

from tuneloom_common.addresses import is_loopback
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.settings import load
from tuneloom_gateway.edge.descriptors import Descriptors
from tuneloom_gateway.server import listen
from tuneloom_gateway.settings import Settings

DIGEST = hashlib.sha256(b"k").hexdigest()
ENGINE = {"ENGINE_URL": "http://127.0.0.1:9000/v1/"}


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"TUNELOOM_GATEWAY_{name}", value)
    return load(Settings)


@pytest.mark.parametrize("keys", [DIGEST, f"{DIGEST}, {DIGEST}", f"{DIGEST}\n{DIGEST}\n", json.dumps([DIGEST])])
def test_keys_from_the_environment(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, API_KEY_SHA256S=keys, HOST="0.0.0.0", TRUSTED_NETWORK="true", **ENGINE)
    assert set(found.api_key_sha256s) == {DIGEST}
    assert found.engine_url == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("variables", "named", "says"),
    [
        ({"HOST": "0.0.0.0", **ENGINE}, "API_KEY_SHA256S", "other machines can reach"),
        (
            {"HOST": "gateway.internal", "TRUSTED_NETWORK": "true", **ENGINE},
            "API_KEY_SHA256S",
            "other machines can reach",
        ),
        ({"API_KEY_SHA256S": "sk-secret-key", **ENGINE}, "API_KEY_SHA256S", "sha256sum"),
        ({"API_KEY_SHA256S": "[", **ENGINE}, "API_KEY_SHA256S", "JSON"),
        ({}, "ENGINE_HOST_URL", "TUNELOOM_GATEWAY_ENGINE_URL"),
        ({"ENGINE_HOST_URL": "https://h:1", **ENGINE}, "ENGINE_HOST_URL", "not both"),
        ({"ENGINE_URL": "localhost:8000"}, "ENGINE_URL", "not an http"),
        ({"ENGINE_URL": "http://me:s3cret@prod:port"}, "ENGINE_URL", "is not an http:// or https:// URL; write it"),
        ({"PORT": "eighty", **ENGINE}, "PORT", "integer"),
        ({"PUBLISHED": "0.0.0.0", "TRUSTED_NETWORK": "true", **ENGINE}, "PUBLISHED", "BEHIND_TLS_PROXY=true"),
        ({"PUBLISHED": "[::]", "TRUSTED_NETWORK": "true", **ENGINE}, "PUBLISHED", "TUNELOOM_GATEWAY_TLS_CERTIFICATE"),
        ({"PUBLISHED": "", **ENGINE}, "PUBLISHED", "plain text"),
        ({"MAX_BODY_BYTES": "1", **ENGINE}, "MAX_BODY_BYTES", "1024"),
    ],
)
def test_bad_settings(
    variables: dict[str, str],
    named: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        settings(monkeypatch, **variables)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    line = next(line for line in lines if line.startswith(f"TUNELOOM_GATEWAY_{named}: "))
    assert says in line
    assert "s3cret" not in line
    assert "sk-secret-key" not in "".join(lines)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PUBLISHED": "127.0.0.1"},
        {"PUBLISHED": "[::1]"},
        {"PUBLISHED": "0.0.0.0", "BEHIND_TLS_PROXY": "true"},
        {"PUBLISHED": "0.0.0.0", "TLS_CERTIFICATE": "/x/tls.crt", "TLS_KEY": "/x/tls.key"},
    ],
)
def test_a_published_port_is_for_this_machine_or_has_tls(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"HOST": "0.0.0.0", "TRUSTED_NETWORK": "true", "API_KEY_SHA256S": DIGEST, **ENGINE}
    assert settings(monkeypatch, **there, **variables).published == variables.get("PUBLISHED", "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition) as error:
            listen(Settings(port=port, engine_url="http://127.0.0.1:9"), Descriptors(1024))
    assert f"127.0.0.1:{port} is in use" in error.value.message
    assert "TUNELOOM_GATEWAY_PORT" in error.value.message


def test_a_listening_socket() -> None:
    with listen(Settings(port=0, engine_url="http://127.0.0.1:9"), Descriptors(1024)) as listener:
        assert listener.getsockname()[1] > 0
