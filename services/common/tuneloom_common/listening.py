"""What an operator says about a listening socket: who can read what passes, who may come in."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tuneloom_common.addresses import is_loopback, join
from tuneloom_common.networks import NetworkSettings
from tuneloom_common.principals import PrincipalEntry
from tuneloom_common.tls.pairs import Pair
from tuneloom_common.tls.servers import ServerTls


class ListeningSettings(NetworkSettings):
    """Plain text only where nobody else can listen in: on loopback, or on a network that the operator trusts."""

    host: str = "127.0.0.1"
    tls_key: Path | None = None
    """The certificate's private key, unencrypted PEM."""
    tls_client_ca: Path | None = None
    """The authority whose certificates callers must have to connect. What they may do is still decided by tokens."""
    tls_certificate: Path | None = Field(default=None, validate_default=True)
    """The service's certificate and its chain, PEM. These files may be replaced at any time."""

    @property
    def tls(self) -> ServerTls | None:
        """None: plain text."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(Pair(self.tls_certificate, self.tls_key), self.tls_client_ca)

    def shown(self, port: int) -> str:
        """Where the service listens, for its log."""
        return f"{join(self.host, port)}{' with TLS' if self.tls else ' in plain text'}"

    @field_validator("tls_certificate")
    @classmethod
    def _secured(cls, certificate: Path | None, info: ValidationInfo) -> Path | None:
        prefix = cls.model_config.get("env_prefix", "")
        key, client_ca = info.data.get("tls_key"), info.data.get("tls_client_ca")
        if certificate is not None and key is None:
            raise ValueError(f"needs its private key; set {prefix}TLS_KEY")
        if certificate is None and (key or client_ca):
            raise ValueError(f"needed beside {prefix}{'TLS_KEY' if key else 'TLS_CLIENT_CA'}; set it, or unset that")
        host = str(info.data.get("host", ""))
        if certificate is None and not is_loopback(host) and not info.data.get("trusted_network"):
            raise ValueError(
                f"needed because {prefix}HOST={host} lets other machines connect, and tokens and data would be sent in "
                f"plain text; set it and {prefix}TLS_KEY, or {prefix}TRUSTED_NETWORK=true where whoever can reach it "
                f"may read everything, or {prefix}HOST=127.0.0.1"
            )
        return certificate


class GuardedSettings(ListeningSettings):
    """Without tokens a service is open to every program on its machine, and starts on a loopback address only."""

    token: SecretStr | None = Field(default=None, min_length=1)
    """A token that may do everything; `principals` are for those who need less."""
    principals: tuple[PrincipalEntry, ...] = Field(default=(), validate_default=True)
    """Callers with names and scopes: [{"id": …, "token_sha256": …, "scopes": […]}]."""

    @field_validator("principals")
    @classmethod
    def _not_open_to_others(
        cls, principals: tuple[PrincipalEntry, ...], info: ValidationInfo
    ) -> tuple[PrincipalEntry, ...]:
        prefix, host = cls.model_config.get("env_prefix", ""), str(info.data.get("host", ""))
        if not (principals or info.data.get("token") or is_loopback(host)):
            raise ValueError(
                f"needed because {prefix}HOST={host} lets other machines connect; set this or {prefix}TOKEN, or "
                f"{prefix}HOST=127.0.0.1"
            )
        return principals
