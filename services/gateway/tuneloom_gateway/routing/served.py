"""What a model name comes down to: immutable versions, the engine that serves each, and its name there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tuneloom_client.versions import Version
from tuneloom_common.errors import DataLoss, InvalidArgument
from tuneloom_common.kinds import Kind
from tuneloom_common.names import EngineName

_NOT_SERVED = {
    Kind.CHECKPOINT: ("is a trainer's checkpoint; let the registry convert it first (CreateBuild with `convert`)"),
    Kind.DATASET: "is a dataset; name a model instead, GET /v1/models lists them",
}


@dataclass(frozen=True)
class ServedVersion:
    """`engine` is the name of the engine that has its full weights, `engine_model` the version's name within it."""

    model: str
    version: str
    digest: str
    kind: Kind
    created: int
    engine: str
    engine_model: str

    @cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-served-model", self.version.encode()),
            (b"x-served-model-digest", self.digest.encode()),
        ]


def served_version(version: Version) -> ServedVersion:
    """How to serve a version. Raises InvalidArgument for kinds that cannot be served, DataLoss for damaged ones."""
    if version.kind is None:
        raise InvalidArgument(
            f"{version.name} is of a kind this gateway does not know; is it older than the registry?",
            field="model",
            reason="MODEL_NOT_SERVABLE",
        )
    if not version.kind.servable:
        raise InvalidArgument(f"{version.name} {_NOT_SERVED[version.kind]}", field="model", reason="MODEL_NOT_SERVABLE")
    manifest = version.manifest  # raises DataLoss when it is not what the digest says
    if version.kind.full_weights:
        engine = version.engine_name
    elif manifest.base is None:
        raise DataLoss(f"{version.name}: the adapter's manifest names no base model; register it again")
    else:
        engine = str(EngineName.of(manifest.base.model, manifest.base.digest))
    return ServedVersion(
        model=version.name.id,
        version=str(version.name),
        digest=version.digest,
        kind=version.kind,
        created=int(version.create_time.timestamp()),
        engine=_checked(engine, version),
        engine_model=_checked(version.engine_name, version),
    )


def _checked(engine_name: str, version: Version) -> str:
    # Engines join names to paths and the engine host's URL ends in one: nothing else may reach them.
    try:
        return str(EngineName.parse(engine_name))
    except InvalidArgument as error:
        raise DataLoss(f"{version.name}: {error.message}; the registry's data is damaged") from None
