"""What an operator can set, each as TUNELOOM_ENGINE_<NAME>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from tuneloom_client.access import RegistryAccess
from tuneloom_common.blob_cache import DEFAULT_MAX_BYTES
from tuneloom_common.listening import GuardedSettings
from tuneloom_common.objects.settings import ObjectsSettings
from tuneloom_common.settings import ServiceSettings

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class ResolverSettings(RegistryAccess, ObjectsSettings):
    """What finding versions takes: for the host, and for the plugin in a vLLM that was started by other means."""

    model_config = SettingsConfigDict(env_prefix="TUNELOOM_ENGINE_", frozen=True, extra="ignore")

    cache_dir: Path = Path(".tuneloom/engine/cache")
    """Where versions are made available, one directory per digest. On the disk of a local object store the
    files are hard links and take no space."""
    blob_cache_dir: Path = Path(".tuneloom/blobs")
    """Shared by the registry, the trainer and the engine host of one machine."""
    blob_cache_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=0)
    """What blobs and versions that are not in use may take; the least recently used leave."""
    max_lora_rank: int = 64
    """Adapters above this rank are refused; every slot takes the memory of this rank."""
    serves: str = ""
    """Engine name of the base model that a vLLM process serves; by default its model directory's name."""

    @field_validator("max_lora_rank")
    @classmethod
    def _rank(cls, rank: int) -> int:
        if rank not in LORA_RANKS:
            raise ValueError(f"{rank} is not a rank vLLM has slots for; use one of {LORA_RANKS}")
        return rank


class HostedSettings(ServiceSettings):
    """What the plugin needs in a process that an engine host started: whom to ask."""

    model_config = SettingsConfigDict(env_prefix="TUNELOOM_ENGINE_", frozen=True, extra="ignore")

    adapters_socket: Path
    serves: str


class HostSettings(GuardedSettings, ResolverSettings):
    """Where the host listens, and how it runs engines."""

    port: int = Field(default=8010, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ()
    """Further names by which callers may address this host; a loopback address always has its own."""
    max_connections: int = Field(default=256, ge=1)
    socket_dir: Path | None = None
    """Where the engines' private sockets lie, in a directory of their own; by default with the temporary files."""
    log_json: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_dir: Path = Path(".tuneloom/engine/logs")

    python: Path = Path(".venv-engine/bin/python")
    """Interpreter of the engine environment, in which vLLM is installed."""
    command: tuple[str, ...] = ()
    """What to run instead of `python -m tuneloom_engine.inside.serve`; vLLM's arguments are appended."""
    extra_arguments: tuple[str, ...] = ()
    """Further arguments for vLLM, such as ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]."""

    preload: tuple[str, ...] = ()
    """Engine names to start at once."""
    max_replicas: int = Field(default=2, ge=1, le=64)
    start_timeout_seconds: float = Field(default=600.0, gt=0)
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long running requests may take after an engine was told to stop."""
    idle_stop_seconds: float = Field(default=0.0, ge=0)
    """Engines without a request for so long are stopped; 0 keeps them until their place is needed."""

    device: Literal["cpu", "gpu"] = "cpu"
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = ""
    """Empty means float32 on a CPU, so that adapter and merged model agree to rounding, and auto on a GPU."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for the key-value cache of one engine on a CPU."""
    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU that all replicas together may take."""
    threads: int = Field(default=0, ge=0)
    """Compute threads of one engine on a CPU; 0 means one less than there are processors."""
    max_model_len: int = Field(default=0, ge=0)
    """Longest prompt and answer in tokens; 0 means what the model allows, as far as the cache holds it."""
    max_loras: int = Field(default=4, ge=1)
    """Different adapters in one batch."""
    max_cpu_loras: int = Field(default=16, ge=1)
    """Adapters kept in memory."""
