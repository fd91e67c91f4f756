"""Which services a command talks to: those of this home, or a cluster's that the environment names."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from tuneloom_cli.local.home import Connection, Home
from tuneloom_common.networks import CA_NEEDED, NetworkSettings, http_url, leaves_machine, would_be_read
from tuneloom_common.settings import load
from tuneloom_common.tls import PeerTls

PREFIX = "TUNELOOM_CLI_"
GRPC = ("registry_address", "trainer_address")
NEEDED = (*GRPC, "gateway_url")


class ClusterSettings(NetworkSettings):
    """Each as TUNELOOM_CLI_<NAME>. Without addresses, the services of this home are meant."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, validate_default=True)

    token: SecretStr | None = None
    """For registry, trainer and engine host."""
    api_key: SecretStr | None = None
    """For the gateway."""
    ca: str = ""
    """Who signed the services' certificates: a PEM file, or `system`. Without it registry and trainer are called in
    plain text; gateway and engine host are called as their URLs say."""
    certificate: Path | None = None
    """Ours, where the services ask for one; with `key`."""
    key: Path | None = None
    registry_server_name: str = ""
    """The name in the registry's certificate, where it is not the one in its address."""
    trainer_server_name: str = ""
    registry_address: str = ""
    trainer_address: str = ""
    engine_host_url: str = ""
    """Optional: tells what an engine is doing while a chat waits for it."""
    gateway_url: str = ""

    @field_validator("registry_address", "trainer_address", "engine_host_url", "gateway_url")
    @classmethod
    def _unread(cls, target: str, info: ValidationInfo) -> str:
        if target and info.field_name not in GRPC:
            target = http_url(target)
        plain = not info.data.get("ca") if info.field_name in GRPC else target.startswith("http://")
        if target and plain and not info.data.get("trusted_network") and leaves_machine(target):
            mend = f"set {PREFIX}CA {CA_NEEDED}" if info.field_name in GRPC else "use https://"
            raise ValueError(would_be_read(target, mend=mend, prefix=PREFIX))
        return target

    @field_validator("gateway_url")
    @classmethod
    def _all_or_none(cls, gateway_url: str, info: ValidationInfo) -> str:
        values = info.data | {"gateway_url": gateway_url}
        missing = [PREFIX + name.upper() for name in NEEDED if not values.get(name)]
        if 0 < len(missing) < len(NEEDED):
            raise ValueError(f"a cluster needs all of its addresses; set {' and '.join(missing)}")
        return gateway_url.rstrip("/").removesuffix("/v1")

    def tls(self, service: str) -> PeerTls | None:
        """For gRPC; `service` is "registry" or "trainer"."""
        named = f"{service}_server_name"
        return PeerTls.of(
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            server_name=getattr(self, named),
            setting=PREFIX,
            name_setting=PREFIX + named.upper(),
        )

    def connection(self) -> Connection | None:
        """None when the environment names no cluster."""
        if not self.gateway_url:
            return None
        return Connection(
            registry=self.registry_address,
            trainer=self.trainer_address,
            gateway=self.gateway_url,
            engine_host=self.engine_host_url.rstrip("/"),
            service_token=self.token.get_secret_value() if self.token else "",
            api_key=self.api_key.get_secret_value() if self.api_key else "",
            registry_tls=self.tls("registry"),
            trainer_tls=self.tls("trainer"),
            elsewhere=True,
        )


def connection() -> Connection:
    """Raises FailedPrecondition when there is neither a cluster nor a home that was ever started."""
    return load(ClusterSettings).connection() or Home.locate().connection()
