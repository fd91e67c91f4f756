"""The registry's vocabulary of artifacts: collections, versions, aliases, and what may be registered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tuneloom_common.errors import FailedPrecondition, InvalidArgument
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import EngineName, VersionName

_UNSAFE_SUFFIXES = (
    ".bin", ".ckpt", ".dill", ".h5", ".joblib", ".msgpack", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py",
    ".pyc", ".so",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collection:
    """A model or a dataset: a named series of versions."""

    name: str
    create_time: datetime
    training_job: str = ""
    latest_version: int = 0
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable artifact in its parent."""

    name: VersionName
    digest: str
    manifest: Manifest
    create_time: datetime
    aliases: tuple[str, ...] = ()

    @property
    def engine_name(self) -> str:
        return str(EngineName.of(self.name.id, self.digest))


@dataclass(frozen=True, slots=True)
class Alias:
    parent: str
    alias: str
    version: int
    update_time: datetime


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """An alias moved, or (alias empty) a version was added."""

    sequence: int
    model: str
    alias: str
    version: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease a writer works under; see tuneloom.common.v1.Fence."""

    scope: str
    epoch: int

    @property
    def lost(self) -> str:
        """How the error begins that a writer gets after a higher epoch."""
        return f"{self.scope}: epoch {self.epoch} has lost its lease"


def check_registrable(manifest: Manifest) -> None:
    """The rules a manifest from outside must meet; raises with the file or field at fault."""
    for file in manifest.files:
        if file.path.lower().endswith(_UNSAFE_SUFFIXES):
            raise InvalidArgument(
                f"files: {file.path} can carry code; only safetensors weights and text files are stored, convert it "
                "with save_pretrained(…, safe_serialization=True)",
                field="files",
                reason="UNSAFE_FILE",
            )
    paths = {file.path for file in manifest.files}
    if manifest.kind is Kind.MERGED:
        raise FailedPrecondition(
            "merged models come from a merge build, which proves them; request one with CreateBuild",
            reason="PROOF_REQUIRED",
        )
    if manifest.kind is Kind.BASE:
        if manifest.template is None:
            raise InvalidArgument("template: a base needs its tokenizer and chat template hashes", field="template")
        if "config.json" not in paths or not any(path.endswith(".safetensors") for path in paths):
            raise InvalidArgument("files: a base needs config.json and safetensors weights", field="files")
    if manifest.kind in (Kind.ADAPTER, Kind.CHECKPOINT) and manifest.base is None:
        raise InvalidArgument(f"base: {manifest.kind} manifests name the base they were trained on", field="base")
