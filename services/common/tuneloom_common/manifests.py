"""The artifact manifest: what a version consists of and where it came from.

The digest of a version is the sha256 of its manifest's canonical JSON (UTF-8, sorted keys, no spaces, absent
fields left out), so equal content has equal identity everywhere.

A reader keeps what it does not know: a manifest from a newer release has the same bytes and digest here. So a field
that is added defaults to None, which is left out; any other default would change the digests of what is stored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.ids import check_sha256
from tuneloom_common.kinds import Kind

SCHEMA_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, ser_json_inf_nan="constants")

    @model_serializer(mode="wrap")
    def _present(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Our own fields without those that are None, unknown ones as they came."""
        values: dict[str, Any] = serialize(self)
        return {key: value for key, value in values.items() if value is not None or key not in type(self).model_fields}


class FileEntry(_Part):
    """One file: `path` relative with forward slashes, `size` in bytes."""

    path: str
    size: int = Field(ge=0)
    sha256: str

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = path.split("/")
        if {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path or any(len(p.encode()) > 255 for p in parts):
            raise ValueError(f"{path[:300]!r} is not a plain relative path inside the artifact")
        return path

    @field_validator("sha256")
    @classmethod
    def _hash(cls, value: str) -> str:
        return check_sha256(value, field="sha256")


class BaseRef(_Part):
    """The full-weight version an adapter or checkpoint was trained on, or a merged model was made from."""

    model: str
    digest: str

    @field_validator("digest")
    @classmethod
    def _hash(cls, value: str) -> str:
        return check_sha256(value, field="digest")


class Template(_Part):
    """What turns a conversation into tokens, frozen at training time."""

    tokenizer_sha256: str
    chat_template_sha256: str
    stop_tokens: tuple[str, ...]


class Lora(_Part):
    """The adapter's shape; `targets` are names of linear layers."""

    r: int
    alpha: float
    targets: tuple[str, ...]
    rslora: bool = False


class Lineage(_Part):
    """Where an artifact came from. Digests are of versions, `recipe` of the resolved training spec."""

    job: str | None = None
    step: int | None = None
    datasets: tuple[str, ...] = ()
    recipe: str | None = None
    seed: int | None = None
    code_version: str | None = None
    parent: str | None = None


class Proof(_Part):
    """Evidence that a merged model answers as base plus adapter does, over held-out prompts.

    `greedy_agreement` is the share of generated positions on which the argmax tokens are equal, `max_logit_diff`
    the largest absolute difference of any logit, `mean_kl` the mean KL(adapter || merged) per position in nats,
    `adapter_effect` the largest logit difference between the base alone and base plus adapter: a proof over
    prompts the adapter does not touch would prove nothing.
    """

    prompts: int
    positions: int
    greedy_agreement: float
    max_logit_diff: float
    mean_kl: float
    adapter_effect: float
    dtype: str


class Manifest(_Part):
    """A version's content, provenance and proof."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Kind
    files: tuple[FileEntry, ...] = Field(min_length=1)
    base: BaseRef | None = None
    template: Template | None = None
    lora: Lora | None = None
    quantization: str | None = None
    lineage: Lineage | None = None
    proof: Proof | None = None

    @field_validator("schema_version", mode="before")
    @classmethod
    def _readable(cls, version: Any) -> Any:
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ValueError(
                f"this release reads manifests up to version {SCHEMA_VERSION} and this one has {version}; it was "
                "written by a newer Tuneloom, upgrade this one to read it"
            )
        return version

    @field_validator("files")
    @classmethod
    def _unique_and_sorted(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        paths = [file.path for file in files]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have the same path")
        folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
        if folder := folders.intersection(paths):
            raise ValueError(f"{folder.pop()!r} is a file and a folder")
        return tuple(sorted(files, key=lambda file: file.path))

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def parse(cls, data: str | bytes) -> Manifest:
        """Parses and validates; raises InvalidArgument naming the offending field."""
        try:
            manifest = cls.model_validate_json(data)
            manifest.canonical()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "manifest_json"
            raise InvalidArgument(f"manifest: {where}: {first['msg']}", field=where) from None
        except (ValueError, RecursionError) as error:  # in a field we do not know: NaN, or too deep
            raise InvalidArgument(f"manifest: it has no canonical form: {error}", field="manifest_json") from None
        return manifest


def canonical_json(value: Any) -> bytes:
    """One spelling per value: sorted keys, no spaces, UTF-8; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
