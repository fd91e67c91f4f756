"""What an operator can set, each as TUNELOOM_GATEWAY_<NAME>."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from tuneloom_client.access import RegistryAccess
from tuneloom_common.addresses import is_loopback
from tuneloom_common.listening import ListeningSettings
from tuneloom_common.networks import http_url, leaves_machine, would_be_read
from tuneloom_common.principals import PrincipalEntry, Scope
from tuneloom_common.tls import PeerTls

CLIENT_SCOPES: tuple[Scope, ...] = ("inference", "models:read")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Settings(ListeningSettings, RegistryAccess):
    """Exactly one of `engine_url` and `engine_host_url` says where engines are.

    `api_key_sha256s` holds sha256 sums (hex, separated by commas, or a JSON list) of the accepted keys, so
    that a leaked environment leaks no key. Without any, the gateway starts only on a loopback address and is
    then open to every program on this machine, but not to web pages of other sites.
    """

    model_config = SettingsConfigDict(env_prefix="TUNELOOM_GATEWAY_")

    port: int = Field(default=8000, ge=0, le=65535)
    behind_tls_proxy: bool = False
    """Whoever reaches `published` is a proxy that speaks TLS with everybody else."""
    published: str = "127.0.0.1"
    """The host's address at which a container's port is published: what `trusted_network` says of the network that
    `host` is on says nothing of that one."""
    log_json: bool = False
    principals: tuple[PrincipalEntry, ...] = ()
    """Callers with names and scopes: [{"id": …, "key_sha256": …, "scopes": ["inference", "models:read"]}]."""
    api_key_sha256s: Annotated[tuple[str, ...], NoDecode] = Field(default=(), validate_default=True)

    registry_timeout_seconds: float = Field(default=5.0, gt=0)
    stale_alias_seconds: float = Field(default=2.0, ge=0)
    """How long a moved alias may go unnoticed while the registry's watch stream is down."""

    engine_url: str = ""
    """Any OpenAI-compatible server, without the /v1, that knows all models by their engine names."""
    engine_host_url: str = Field(default="", validate_default=True)
    """The engine host, which starts one engine per base or merged model."""
    engine_host_token: SecretStr | None = None
    engine_host_ca: str = ""
    """Who signed the engine host's certificate, where its URL is https: a PEM file, or `system`."""
    engine_host_certificate: Path | None = None
    """Ours, where the engine host asks for one; with `engine_host_key`."""
    engine_host_key: Path | None = None
    engine_host_server_name: str = Field(default="", validate_default=True)
    engine_api_key: SecretStr | None = None
    engine_connect_timeout_seconds: float = Field(default=5.0, gt=0)
    engine_read_timeout_seconds: float = Field(default=600.0, gt=0)
    """Longest silence of an engine in the middle of a request."""
    engine_start_timeout_seconds: float = Field(default=600.0, gt=0)

    max_body_bytes: int = Field(default=10 << 20, ge=1024)
    max_bodies_bytes: int = Field(default=256 << 20, ge=1024)
    """All bodies held at a time; half of it for any one caller."""
    body_timeout_seconds: float = Field(default=60.0, gt=0)
    max_concurrent_requests: int = Field(default=1000, ge=1)
    max_concurrent_requests_per_key: int = Field(default=0, ge=0)
    """0: half of all, but one at least."""

    max_connections: int = Field(default=0, ge=0)
    """0: half of the file descriptors the process may have; the others are for engines."""
    max_connections_per_client: int = Field(default=0, ge=0)
    """Per address; 0: half of all. To be raised behind a proxy."""
    max_header_bytes: int = Field(default=32 << 10, ge=1024)
    max_headers: int = Field(default=100, ge=8)
    max_request_line_bytes: int = Field(default=8 << 10, ge=256)
    header_timeout_seconds: float = Field(default=10.0, gt=0)
    keep_alive_seconds: float = Field(default=75.0, gt=0)
    """Longer than the idle time of common clients and load balancers, so that they close first."""
    write_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long a client may read nothing of its answer."""
    drain_seconds: int = Field(default=60, ge=0)
    """How long running requests may take after SIGTERM."""

    @property
    def engine_host_tls(self) -> PeerTls | None:
        """None: as any HTTP client calls this URL."""
        return _engine_host_tls(self.__dict__)

    @property
    def callers(self) -> list[PrincipalEntry]:
        """Everyone who may call. A key that only has a hash is named after it and may do what clients do."""
        scopes = frozenset(CLIENT_SCOPES)
        keys = (PrincipalEntry(id=f"key-{key[:8]}", token_sha256=key, scopes=scopes) for key in self.api_key_sha256s)
        return [*self.principals, *keys]

    @field_validator("published")
    @classmethod
    def _readable(cls, published: str, info: ValidationInfo) -> str:
        loopback = is_loopback(published.removeprefix("[").removesuffix("]"))
        if not (loopback or info.data.get("tls_certificate") or info.data.get("behind_tls_proxy")):
            raise ValueError(
                f"{published} lets other machines connect, and keys and prompts would be sent in plain text; set "
                "TUNELOOM_GATEWAY_TLS_CERTIFICATE and TUNELOOM_GATEWAY_TLS_KEY, or "
                "TUNELOOM_GATEWAY_BEHIND_TLS_PROXY=true where only a proxy that speaks TLS reaches this address, or "
                "publish on 127.0.0.1 (TUNELOOM_GATEWAY_BIND of deploy/compose)"
            )
        return published

    @field_validator("api_key_sha256s", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("starts with [ but is not a JSON list") from None
        return [part for part in re.split(r"[,\s]+", value) if part]

    @field_validator("api_key_sha256s")
    @classmethod
    def _keys(cls, keys: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for number, key in enumerate(keys, start=1):
            if not _SHA256.fullmatch(key):  # it may be a key itself, so it is not shown
                raise ValueError(f"item {number} is not a sha256 in hex; make it with: printf %s KEY | sha256sum")
        host = str(info.data.get("host", ""))
        if not keys and not info.data.get("principals") and not is_loopback(host):
            raise ValueError(
                f"needed because the gateway listens on {host}, which other machines can reach; "
                "set the sha256 of at least one key, or set TUNELOOM_GATEWAY_HOST=127.0.0.1"
            )
        return keys

    @field_validator("engine_host_server_name")
    @classmethod
    def _whole_tls(cls, name: str, info: ValidationInfo) -> str:
        tls = _engine_host_tls(info.data | {"engine_host_server_name": name})
        if tls is not None and not str(info.data.get("engine_host_url", "")).startswith("https://"):
            raise ValueError("TUNELOOM_GATEWAY_ENGINE_HOST_CA is for a TUNELOOM_GATEWAY_ENGINE_HOST_URL with https://")
        return name

    @field_validator("engine_url", "engine_host_url")
    @classmethod
    def _url(cls, url: str, info: ValidationInfo) -> str:
        if url:
            url = http_url(url)
        if url.startswith("http://") and not info.data.get("trusted_network") and leaves_machine(url):
            raise ValueError(would_be_read(url, mend="use https://", prefix="TUNELOOM_GATEWAY_"))
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("engine_host_url")
    @classmethod
    def _one_source(cls, host_url: str, info: ValidationInfo) -> str:
        if bool(host_url) == bool(info.data.get("engine_url")):
            raise ValueError(
                "set either this (an engine host that starts engines) or TUNELOOM_GATEWAY_ENGINE_URL "
                "(one running OpenAI-compatible server), not both and not neither"
            )
        return host_url


def _engine_host_tls(values: Mapping[str, Any]) -> PeerTls | None:
    return PeerTls.of(
        ca=values.get("engine_host_ca", ""),
        certificate=values.get("engine_host_certificate"),
        key=values.get("engine_host_key"),
        server_name=values.get("engine_host_server_name", ""),
        setting="TUNELOOM_GATEWAY_ENGINE_HOST_",
        url_setting="TUNELOOM_GATEWAY_ENGINE_HOST_URL",
    )
