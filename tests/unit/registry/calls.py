"""Calls to a registry, and what they leave on its disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.registry.conftest import Registry
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom_common.errors import (
    TuneloomError,
)
from tuneloom_common.grpc import translated
from tuneloom_common.objects import MARKER

LARGE = os.urandom(5_000_000)


async def refused(call: Any, error: type[TuneloomError]) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(error) as caught, translated("registry"):
        await call
    return caught.value


def staged(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "work/uploads").iterdir())


def blobs(tmp_path: Path) -> list[str]:
    files = [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    return [name for name in files if name != MARKER]


async def download(registry: Registry, sha256: str) -> bytes:
    with translated("registry"):
        parts = registry.stub.DownloadBlob(pb.DownloadBlobRequest(sha256=sha256))
        return b"".join([part.chunk async for part in parts])
