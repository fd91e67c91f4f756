"""Versions as engines see them: found by engine name, checked against their digest, made available as files.

Whoever hands out a version is not trusted: the name fixes the first 12 digits of the digest, the digest fixes
the manifest, the manifest fixes every byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from tuneloom_client.versions import Version
from tuneloom_common.errors import DataLoss, FailedPrecondition
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.names import EngineName
from tuneloom_engine.cache import VersionCache

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
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

    async def resolve(self, reference: str) -> Version:
        """The version of this engine name."""


class Artifacts:
    """Versions of a registry, with their files."""

    def __init__(self, registry: Registry, cache: VersionCache) -> None:
        self._registry = registry
        self._cache = cache

    async def find(self, name: str) -> Artifact:
        """Raises InvalidArgument or NotFound for the name, DataLoss when the answer does not match it."""
        wanted = EngineName.parse(name)
        version = await self._registry.resolve(name)
        if not version.digest.startswith(wanted.digest12):
            raise DataLoss(
                f"the registry's manifest of {name} has digest {version.digest[:16]}…, which does not match the name; "
                "check the registry's database"
            )
        return Artifact(name, version.digest, version.manifest)

    async def fetch(self, artifact: Artifact, *, holder: str) -> Path:
        """The directory that holds the artifact's served files, for the engine called `holder`."""
        return await self._cache.fetch(artifact.digest, artifact.served_files, holder=holder)
