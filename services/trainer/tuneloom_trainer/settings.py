"""The trainer's settings, from TUNELOOM_TRAINER_* variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from tuneloom_client.access import RegistryAccess
from tuneloom_common.blob_cache import DEFAULT_MAX_BYTES
from tuneloom_common.database import DatabaseSettings
from tuneloom_common.listening import GuardedSettings
from tuneloom_common.objects.settings import ObjectsSettings


class TrainerSettings(GuardedSettings, RegistryAccess, DatabaseSettings, ObjectsSettings):
    """Where the trainer listens, stores and runs workers."""

    model_config = SettingsConfigDict(env_prefix="TUNELOOM_TRAINER_", frozen=True, extra="ignore")

    port: int = Field(default=8022, ge=0, le=65535)
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///.tuneloom/trainer.db")
    work_dir: Path = Path(".tuneloom/trainer")
    blob_cache_dir: Path = Path(".tuneloom/blobs")
    """Shared by the registry, the trainer and the engine host of one machine."""
    blob_cache_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=0)
    max_upload_bytes: int = Field(default=200 << 30, ge=1)
    upload_idle_seconds: float = Field(default=60.0, gt=0)
    worker_permission_seconds: int = Field(default=900, ge=0, le=7 * 24 * 3600)
    """How long a worker elsewhere may use a URL of the object store that it was given; 0 gives none, and its
    checkpoints come through the trainer. An S3 store alone gives such URLs."""
    worker_command: tuple[str, ...] = (sys.executable, "-m", "tuneloom_trainer.worker")
    worker_device: Literal["auto", "cpu", "cuda"] = "auto"
    worker_threads: int = Field(default=0, ge=0)
    slots: int = Field(default=1, ge=0, le=64)
    """Jobs that run here at a time; 0 leaves them to other trainers on the same database."""
    max_lora_rank: int = Field(default=64, ge=1, le=512)
    """What the engines serve, TUNELOOM_ENGINE_MAX_LORA_RANK: a larger adapter is refused before it is trained."""
    lease_seconds: float = Field(default=10.0, gt=0)
    stop_grace_seconds: float = Field(default=20.0, gt=0)
    validation_timeout_seconds: float = Field(default=3600.0, gt=0)
    """How long a worker may read and render its data."""
    max_attempts: int = Field(default=5, ge=1)
    """Workers that may be lost in a row, without progress, before a job fails."""
    log_json: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
