"""The registry's settings, from TUNELOOM_REGISTRY_* variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from tuneloom_common.blob_cache import DEFAULT_MAX_BYTES
from tuneloom_common.database import DatabaseSettings
from tuneloom_common.listening import GuardedSettings
from tuneloom_common.objects.settings import ObjectsSettings
from tuneloom_data.limits import MAX_FILE_BYTES, MAX_MEMORY_BYTES, MAX_ROW_BYTES, MAX_SECONDS


class RegistrySettings(GuardedSettings, DatabaseSettings, ObjectsSettings):
    """Where the registry listens, stores and builds."""

    model_config = SettingsConfigDict(env_prefix="TUNELOOM_REGISTRY_", frozen=True, extra="ignore")

    port: int = Field(default=8021, ge=0, le=65535)
    objects_put_if_absent: Literal["store", "database"] = "store"
    """Who sees to it that one of several writers of an object wins: the store itself, which is tried at every start, or
    a lock of this registry's database, for S3 servers whose If-None-Match is not atomic."""
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///.tuneloom/registry.db")
    work_dir: Path = Path(".tuneloom/registry")
    blob_cache_dir: Path = Path(".tuneloom/blobs")
    """Shared by the registry, the trainer and the engine host of one machine."""
    blob_cache_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=0)
    max_upload_bytes: int = Field(default=200 << 30, ge=1)
    upload_idle_seconds: float = Field(default=60.0, gt=0)
    max_dataset_bytes: int = Field(default=MAX_FILE_BYTES, ge=1)
    max_row_bytes: int = Field(default=MAX_ROW_BYTES, ge=1)
    check_memory_bytes: int = Field(default=MAX_MEMORY_BYTES, ge=64 << 20)
    check_seconds: float = Field(default=MAX_SECONDS, gt=0)
    check_slots: int = Field(default=2, ge=1, le=64)
    """Datasets that are checked at the same time, each in a process of its own."""
    build_command: tuple[str, ...] = (sys.executable, "-m", "tuneloom_registry.transforms")
    build_slots: int = Field(default=2, ge=0, le=64)
    """Builds that run here at a time; 0 leaves them to other registries on the same database."""
    build_lease_seconds: float = Field(default=10.0, gt=0)
    build_max_attempts: int = Field(default=5, ge=1)
    """Children that may be lost in a row before a build fails."""
    build_timeout_seconds: float = Field(default=6 * 3600.0, gt=0)
    proof_dtype: Literal["float32", "bfloat16"] = "float32"
    log_json: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
