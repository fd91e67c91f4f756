"""Versions as engines see them: found by engine name, checked against their digest, made available as files.

Whoever hands out a version is not trusted: the name fixes the first 12 digits of the digest, the digest fixes
the manifest, the manifest fixes every byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import grpc.aio

from tuneloom.registry.v1.registry_pb2 import ResolveVersionRequest
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom.registry.v1.versions_pb2 import Version
from tuneloom_common.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    TuneloomError,
    Unauthenticated,
    Unavailable,
)
from tuneloom_common.grpc import translated
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.names import EngineName
from tuneloom_common.objects import ObjectStore

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
REGISTRY_TIMEOUT_SECONDS = 10
# Pickles can run code when they are loaded. Engines never get to see one.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version whose manifest was checked against its digest."""

    name: str
    digest: str
    manifest: Manifest

    @property
    def served_files(self) -> tuple[FileEntry, ...]:
        """The files an engine reads. An adapter's tokenizer is not among them: the base's counts."""
        if self.manifest.kind is not Kind.ADAPTER:
            return tuple(
                file for file in self.manifest.files if PurePosixPath(file.path).suffix.lower() not in PICKLE_SUFFIXES
            )
        files = tuple(file for file in self.manifest.files if file.path in ADAPTER_FILES)
        if len(files) < len(ADAPTER_FILES):
            raise FailedPrecondition(
                f"{self.name} lacks {' or '.join(ADAPTER_FILES)}; convert its checkpoint again",
                reason="ADAPTER_INCOMPLETE",
            )
        return files


class Registry(Protocol):
    """Raises NotFound for an unknown name, Unavailable when the registry is at fault."""

    async def resolve(self, name: str) -> Version:
        """The version of this engine name."""


class GrpcRegistry:
    """The registry service at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = RegistryServiceStub(channel)

    async def resolve(self, name: str) -> Version:
        with _registry_at_fault():
            version: Version = await self._stub.ResolveVersion(
                ResolveVersionRequest(reference=name), timeout=REGISTRY_TIMEOUT_SECONDS
            )
            return version


class Artifacts:
    """Finds versions in the registry and keeps their files in `cache_dir/<digest>`."""

    def __init__(self, registry: Registry, objects: ObjectStore, cache_dir: Path) -> None:
        self._registry = registry
        self._objects = objects
        self._cache_dir = cache_dir.absolute()
        self._fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, name: str) -> Artifact:
        """Raises InvalidArgument or NotFound for the name, DataLoss when the answer does not match it."""
        wanted = EngineName.parse(name)
        version = await self._registry.resolve(name)
        digest = hashlib.sha256(version.manifest_json.encode()).hexdigest()
        if digest != version.digest or not digest.startswith(wanted.digest12):
            raise DataLoss(
                f"the registry's manifest of {name} has digest {digest[:16]}…, which does not match the name; "
                "check the registry's database"
            )
        return Artifact(name, digest, Manifest.parse(version.manifest_json))

    async def fetch(self, artifact: Artifact) -> Path:
        """The directory that holds the artifact's served files, complete and verified."""
        files = artifact.served_files
        directory = self._cache_dir / artifact.digest
        async with self._fetching[artifact.digest]:
            if await asyncio.to_thread(_holds, directory, files):
                return directory
            await asyncio.to_thread(shutil.rmtree, directory, True)
            try:
                await self._objects.materialize(files, directory)
            except Unavailable:
                # Another process may have been faster: the directory appears all at once, or not at all.
                if not await asyncio.to_thread(_holds, directory, files):
                    raise
        return directory

    def remove_leftovers(self) -> None:
        """Deletes what processes that are gone have not finished fetching."""
        for staging in self._cache_dir.glob("*.part-*"):
            pid = staging.name.rpartition("-")[2]
            if pid.isdigit() and not _runs(int(pid)):
                shutil.rmtree(staging, ignore_errors=True)


def _holds(directory: Path, files: tuple[FileEntry, ...]) -> bool:
    """Whether all files are there with their sizes; their content was verified when they were fetched."""
    try:
        return all((directory / file.path).stat().st_size == file.size for file in files)
    except OSError:
        return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _registry_at_fault() -> Iterator[None]:
    """What is wrong with the registry or with our own token is not the fault of the name."""
    try:
        with translated("registry"):
            yield
    except Unauthenticated:
        raise Unavailable(
            "the registry refused the engine's token; set TUNELOOM_ENGINE_REGISTRY_TOKEN to its token",
            reason="REGISTRY_REFUSED",
        ) from None
    except (InvalidArgument, NotFound) as error:
        raise NotFound(error.message, reason=error.reason) from None
    except TuneloomError as error:
        if type(error) is not TuneloomError:
            raise
        raise Unavailable(
            f"the registry failed or took too long ({error.message[:200]}); its log has the cause",
            reason="REGISTRY_FAILED",
        ) from None
