"""Who may listen where, as an operator's settings have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneloom_common.listening import GuardedSettings, ListeningSettings
from tuneloom_common.settings import load
from tuneloom_engine.settings import HostSettings, ResolverSettings
from tuneloom_gateway.settings import Settings as GatewaySettings
from tuneloom_registry.settings import RegistrySettings
from tuneloom_trainer.settings import TrainerSettings

NEEDED = {
    RegistrySettings: {"OBJECTS_URL": "file:///x"},
    TrainerSettings: {"OBJECTS_URL": "file:///x"},
    HostSettings: {"OBJECTS_URL": "file:///x"},
    ResolverSettings: {"OBJECTS_URL": "file:///x"},
    GatewaySettings: {"ENGINE_URL": "http://127.0.0.1:1", "API_KEY_SHA256S": "0" * 64},
}
SERVICES: tuple[Any, ...] = (RegistrySettings, TrainerSettings, HostSettings, GatewaySettings)
PAIR = {"TLS_CERTIFICATE": "/x/tls.crt", "TLS_KEY": "/x/tls.key"}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Loads a service's settings; returns them, or the lines that name what is wrong."""

    def found(service: Any, **settings: str) -> Any:
        for name, value in (NEEDED[service] | settings).items():
            monkeypatch.setenv(prefix(service) + name, value)
        try:
            return load(service)
        except SystemExit:
            return capsys.readouterr().err

    return found


def prefix(service: Any) -> str:
    return str(service.model_config["env_prefix"])


@pytest.mark.parametrize("service", SERVICES)
def test_plain_text_stays_on_this_machine(service: Any, found: Any) -> None:
    assert isinstance(found(service), ListeningSettings)
    for host in ("0.0.0.0", "::", "registry.internal"):
        told = found(service, HOST=host, TOKEN="t")
        assert told.startswith(f"{prefix(service)}TLS_CERTIFICATE: needed because")
        assert f"{prefix(service)}TRUSTED_NETWORK=true" in told
    assert found(service, HOST="0.0.0.0", TOKEN="t", TRUSTED_NETWORK="true").tls is None


@pytest.mark.parametrize("service", SERVICES)
def test_with_a_certificate_it_may_listen_anywhere(service: Any, found: Any) -> None:
    tls = found(service, HOST="0.0.0.0", TOKEN="t", **PAIR, TLS_CLIENT_CA="/x/ca.crt").tls
    assert [str(file) for file in tls.files] == ["/x/tls.crt", "/x/tls.key", "/x/ca.crt"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("given", "named"), [("TLS_CERTIFICATE", "TLS_KEY"), ("TLS_KEY", "TLS_KEY")])
def test_half_a_pair_is_none(service: Any, found: Any, given: str, named: str) -> None:
    told = found(service, **{given: "/x/file"})
    assert told.startswith(f"{prefix(service)}TLS_CERTIFICATE: ")
    assert prefix(service) + named in told


@pytest.mark.parametrize("service", SERVICES)
def test_a_client_authority_alone_secures_nothing(service: Any, found: Any) -> None:
    assert f"{prefix(service)}TLS_CLIENT_CA" in found(service, TLS_CLIENT_CA="/x/ca.crt")


@pytest.mark.parametrize("service", [each for each in SERVICES if issubclass(each, GuardedSettings)])
def test_without_tokens_it_is_for_this_machine_only(service: Any, found: Any) -> None:
    told = found(service, HOST="0.0.0.0", **PAIR)
    assert told.startswith(f"{prefix(service)}PRINCIPALS: ")
    assert f"{prefix(service)}TOKEN" in told


@pytest.mark.parametrize("service", [TrainerSettings, HostSettings, ResolverSettings, GatewaySettings])
def test_a_registry_elsewhere_is_not_called_in_plain_text(service: Any, found: Any) -> None:
    for address in ("registry.internal:8021", "dns:///registry:8021", "ipv4:127.0.0.1:8021,10.0.0.1:8021"):
        told = found(service, REGISTRY_ADDRESS=address)
        assert told.startswith(f"{prefix(service)}REGISTRY_CA: needed because the registry at {address} is another")
        assert f"{prefix(service)}TRUSTED_NETWORK=true" in told
    assert found(service, REGISTRY_ADDRESS="unix:/run/registry").registry_ca == ""
    assert found(service, REGISTRY_ADDRESS="registry:8021", REGISTRY_CA="system").registry_ca == "system"
    assert found(service, REGISTRY_CA="", TRUSTED_NETWORK="true").registry_address == "registry:8021"


@pytest.mark.parametrize("name", ["ENGINE_URL", "ENGINE_HOST_URL"])
def test_engines_elsewhere_are_not_called_in_plain_text(name: str, found: Any) -> None:
    there = {"ENGINE_URL": "", name: "http://me:password@engines.internal:8010/v1"}
    told = found(GatewaySettings, **there)
    assert f"TUNELOOM_GATEWAY_{name}: http://engines.internal:8010 is another machine" in told
    assert "TUNELOOM_GATEWAY_TRUSTED_NETWORK=true" in told
    assert "password" not in told
    assert found(GatewaySettings, **there, TRUSTED_NETWORK="true").trusted_network
    assert (
        found(GatewaySettings, **there | {name: "https://engines.internal:8010"}, TRUSTED_NETWORK="false").tls is None
    )


@pytest.mark.parametrize("service", [TrainerSettings, HostSettings, GatewaySettings])
def test_the_registrys_half_settings_are_named(service: Any, found: Any) -> None:
    told = found(service, REGISTRY_CERTIFICATE="/x/client.crt", REGISTRY_CA="/x/ca.crt")
    assert f"{prefix(service)}REGISTRY_KEY: needed" in told
    told = found(service, REGISTRY_KEY="/x/client.key", REGISTRY_CA="")
    assert f"{prefix(service)}REGISTRY_CA: needed" in told


def test_an_engine_host_with_an_authority_has_an_https_url(found: Any) -> None:
    hosted = {"ENGINE_URL": "", "ENGINE_HOST_CA": "/x/ca.crt"}
    assert "https://" in found(GatewaySettings, ENGINE_HOST_URL="http://127.0.0.1:8010", **hosted)
    tls = found(GatewaySettings, ENGINE_HOST_URL="https://127.0.0.1:8010", **hosted).engine_host_tls
    assert tls.files == (Path("/x/ca.crt"),)
