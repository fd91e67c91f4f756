"""What a model name comes down to: one immutable version, the engine that serves it, and its name there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tuneloom.registry.v1 import versions_pb2 as pb
from tuneloom_common.errors import DataLoss, InvalidArgument
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import EngineName, VersionName

_KINDS = {pb.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.name}"): kind for kind in Kind}
_NOT_SERVED = {
    Kind.CHECKPOINT: ("is a trainer's checkpoint; let the registry convert it first (CreateBuild with `convert`)"),
    Kind.DATASET: "is a dataset; name a model instead, GET /v1/models lists them",
}


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A served version. `replica` names the engine, `engine_model` the model within it."""

    model: str
    version: str
    digest: str
    kind: Kind
    created: int
    replica: str
    engine_model: str

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-served-model", self.version.encode()),
            (b"x-served-model-digest", self.digest.encode()),
        ]


def served_version(version: pb.Version) -> ServedVersion:
    """How to serve a version. Raises InvalidArgument for kinds that cannot be served."""
    kind = _KINDS.get(version.kind)
    if kind is None:
        raise InvalidArgument(
            f"{version.name} is of a kind this gateway does not know; is it older than the registry?",
            field="model",
            reason="MODEL_NOT_SERVABLE",
        )
    if not kind.servable:
        raise InvalidArgument(f"{version.name} {_NOT_SERVED[kind]}", field="model", reason="MODEL_NOT_SERVABLE")
    if hashlib.sha256(version.manifest_json.encode()).hexdigest() != version.digest:
        raise DataLoss(f"{version.name}: the manifest does not match its digest; the registry's data is damaged")
    replica = version.engine_name if kind.full_weights else _base_of(version)
    return ServedVersion(
        model=VersionName.parse(version.name).id,
        version=version.name,
        digest=version.digest,
        kind=kind,
        created=version.create_time.seconds,
        replica=_checked(replica, version),
        engine_model=_checked(version.engine_name, version),
    )


def _base_of(adapter: pb.Version) -> str:
    base = Manifest.parse(adapter.manifest_json).base
    if base is None:
        raise DataLoss(f"{adapter.name}: the adapter's manifest names no base model; register it again")
    return str(EngineName.of(base.model, base.digest))


def _checked(engine_name: str, version: pb.Version) -> str:
    # Engines join names to paths and the engine host's URL ends in one: nothing else may reach them.
    try:
        return str(EngineName.parse(engine_name))
    except InvalidArgument as error:
        raise DataLoss(f"{version.name}: {error.message}; the registry's data is damaged") from None
