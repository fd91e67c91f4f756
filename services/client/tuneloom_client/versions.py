"""What the registry keeps, as its clients see it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from google.protobuf.timestamp_pb2 import Timestamp

from tuneloom.registry.v1 import registry_pb2, versions_pb2
from tuneloom_common.errors import DataLoss, InvalidArgument
from tuneloom_common.ids import check_sha256
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import AliasName, EngineName, VersionName

_KINDS = {versions_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.name}"): kind for kind in Kind}


@dataclass(frozen=True)
class Version:
    """An immutable artifact. `kind` is None when it is newer than this client."""

    name: VersionName
    digest: str
    kind: Kind | None
    manifest_json: str
    create_time: datetime
    size_bytes: int
    aliases: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: versions_pb2.Version) -> Version:
        """Raises DataLoss for a name or digest that no registry issues."""
        try:
            name, digest = VersionName.parse(message.name), check_sha256(message.digest, field="digest")
        except InvalidArgument as error:
            raise DataLoss(f"{message.name}: {error.message}; the registry's data is damaged") from None
        return cls(
            name=name,
            digest=digest,
            kind=_KINDS.get(message.kind),
            manifest_json=message.manifest_json,
            create_time=time_of(message.create_time),
            size_bytes=message.size_bytes,
            aliases=tuple(message.aliases),
        )

    @property
    def engine_name(self) -> str:
        """The only name an engine may know it by."""
        return str(EngineName.of(self.name.id, self.digest))

    @cached_property
    def manifest(self) -> Manifest:
        """Parsed when first asked for; raises DataLoss when it is not what the digest says."""
        if hashlib.sha256(self.manifest_json.encode()).hexdigest() != self.digest:
            raise DataLoss(f"{self.name}: the manifest does not match its digest; the registry's data is damaged")
        return Manifest.parse(self.manifest_json)


@dataclass(frozen=True, slots=True)
class Model:
    """`training_job` is set for a job's own collection of checkpoints."""

    name: str
    create_time: datetime
    training_job: str
    latest_version: int
    aliases: Mapping[str, int]

    @classmethod
    def of(cls, message: versions_pb2.Model) -> Model:
        return cls(
            name=message.name,
            create_time=time_of(message.create_time),
            training_job=message.training_job,
            latest_version=message.latest_version,
            aliases=dict(message.aliases),
        )

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    create_time: datetime
    latest_version: int

    @classmethod
    def of(cls, message: versions_pb2.Dataset) -> Dataset:
        return cls(message.name, time_of(message.create_time), message.latest_version)

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Alias:
    name: AliasName
    version: int
    update_time: datetime

    @classmethod
    def of(cls, message: versions_pb2.Alias) -> Alias:
        return cls(AliasName.parse(message.name), message.version, time_of(message.update_time))


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """An alias moved, or (alias empty) a version was added."""

    sequence: int
    model: str
    alias: str
    version: int

    @classmethod
    def of(cls, message: registry_pb2.ModelEvent) -> ModelEvent:
        return cls(message.sequence, message.model, message.alias, message.version)


def time_of(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
