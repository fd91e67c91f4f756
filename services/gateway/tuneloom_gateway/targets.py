"""What a model name comes down to: one immutable version, the engine that serves it, and its name there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tuneloom.registry.v1 import versions_pb2 as pb
from tuneloom_common import ids
from tuneloom_common.errors import DataLoss, InvalidArgument
from tuneloom_common.manifests import Manifest

_ENGINE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}--[0-9a-f]{12}")
_SERVED_ALONE = {pb.ARTIFACT_KIND_BASE: "base", pb.ARTIFACT_KIND_MERGED: "merged"}
_NOT_SERVED = {
    pb.ARTIFACT_KIND_CHECKPOINT: (
        "is a trainer's checkpoint; let the registry convert it first (CreateBuild with `convert`)"
    ),
    pb.ARTIFACT_KIND_DATASET: "is a dataset; name a model instead, GET /v1/models lists them",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A served version. `replica` names the engine, `engine_model` the model within it."""

    model: str
    version: str
    digest: str
    kind: str
    created: int
    replica: str
    engine_model: str

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-served-model", self.version.encode()),
            (b"x-served-model-digest", self.digest.encode()),
        ]


def target_of(version: pb.Version) -> Target:
    """How to serve a version. Raises InvalidArgument for kinds that cannot be served."""
    if version.kind in _NOT_SERVED:
        raise InvalidArgument(f"{version.name} {_NOT_SERVED[version.kind]}", field="model", reason="MODEL_NOT_SERVABLE")
    if hashlib.sha256(version.manifest_json.encode()).hexdigest() != version.digest:
        raise DataLoss(f"{version.name}: the manifest does not match its digest; the registry's data is damaged")
    if version.kind in _SERVED_ALONE:
        kind, replica = _SERVED_ALONE[version.kind], version.engine_name
    elif version.kind == pb.ARTIFACT_KIND_ADAPTER:
        kind, replica = "adapter", _base_of(version)
    else:
        raise InvalidArgument(
            f"{version.name} is of a kind this gateway does not know; is it older than the registry?",
            field="model",
            reason="MODEL_NOT_SERVABLE",
        )
    return Target(
        model=ids.VersionName.parse(version.name).id,
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
    return ids.engine_name(base.model, base.digest)


def _checked(engine_name: str, version: pb.Version) -> str:
    # Engines join names to paths and the engine host's URL ends in one: nothing else may reach them.
    if not _ENGINE_NAME.fullmatch(engine_name):
        raise DataLoss(f"{version.name}: {engine_name!r} is not an engine name; the registry's data is damaged")
    return engine_name
