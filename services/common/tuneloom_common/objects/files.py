"""Files on this machine: hashed, synced, made available all or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from tuneloom_common.manifests import FileEntry

CHUNK_BYTES = 1 << 20
Provide = Callable[[FileEntry, Path], Awaitable[None]]
"""Makes one file available at a path that must not exist yet, verified."""


async def materialize(files: Iterable[FileEntry], directory: Path, provide: Provide) -> Path:
    """Makes files available in a directory that must not exist yet, all or nothing."""
    staging = directory.with_name(f"{directory.name}.part-{secrets.token_hex(4)}-{os.getpid()}")
    try:
        for file in files:
            target = staging / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            await provide(file, target)
        staging.rename(directory)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, True)
    return directory


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> tuple[str, int]:
    """sha256 in hex and size in bytes."""
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        return digest, source.tell()
