"""What an operator says about the registry to the services that call it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tuneloom_client.connection import TIMEOUT_SECONDS
from tuneloom_client.registry import RegistryClient
from tuneloom_common.networks import CA_NEEDED, NetworkSettings, leaves_machine, would_be_read
from tuneloom_common.settings import ServiceSettings
from tuneloom_common.tls import PeerTls


class RegistryAccess(NetworkSettings):
    """Several registries on one database are one: `dns:///registry:8021`, or `ipv4:10.0.0.1:8021,10.0.0.2:8021`."""

    registry_address: str = "127.0.0.1:8021"
    registry_token: SecretStr | None = None
    registry_ca: str = Field(default="", validate_default=True)
    """Who signed the registry's certificate: a PEM file, or `system`. Empty: the registry is called in plain text,
    which it must be on this machine for, or on a trusted network."""
    registry_certificate: Path | None = None
    """Ours, with its chain, where the registry asks for one; with `registry_key`. All may be replaced at any time."""
    registry_key: Path | None = None
    registry_server_name: str = Field(default="", max_length=253, validate_default=True)
    """The name in the registry's certificate, where it is not the one in its address."""

    @field_validator("registry_ca")
    @classmethod
    def _registry_unread(cls, authority: str, info: ValidationInfo) -> str:
        address = str(info.data.get("registry_address", ""))
        if not (authority or info.data.get("trusted_network")) and leaves_machine(address):
            prefix = cls.model_config.get("env_prefix", "")
            mend = f"set it {CA_NEEDED}"
            raise ValueError(f"needed because the registry at {would_be_read(address, mend=mend, prefix=prefix)}")
        return authority

    @field_validator("registry_server_name")
    @classmethod
    def _registry_whole(cls, name: str, info: ValidationInfo) -> str:
        _tls(cls, info.data | {"registry_server_name": name})
        return name

    def open_registry(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> RegistryClient:
        """A client of it, whose errors name these settings. To be called inside the event loop."""
        return RegistryClient.at(
            self.registry_address,
            token=self.registry_token.get_secret_value() if self.registry_token else None,
            token_setting=f"{_setting(type(self))}TOKEN",
            address_setting=f"{_setting(type(self))}ADDRESS",
            timeout_seconds=timeout_seconds,
            tls=_tls(type(self), self.__dict__),
        )


def _setting(settings: type[ServiceSettings]) -> str:
    return f"{settings.model_config.get('env_prefix', '')}REGISTRY_"


def _tls(settings: type[ServiceSettings], values: Mapping[str, Any]) -> PeerTls | None:
    return PeerTls.of(
        ca=values.get("registry_ca", ""),
        certificate=values.get("registry_certificate"),
        key=values.get("registry_key"),
        server_name=values.get("registry_server_name", ""),
        setting=_setting(settings),
    )
