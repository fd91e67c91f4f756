"""The one grammar of names: what a version, an alias, a public reference and an engine's model are called.

The registry issues them, everybody else parses them here. Ids and hashes inside them are in `ids`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.ids import check_id, check_number, check_sha256

DEFAULT_ALIAS = "default"
ENGINE_DIGEST_CHARS = 12
COLLECTIONS = ("models", "datasets")
_DIGEST12 = re.compile(rf"[0-9a-f]{{{ENGINE_DIGEST_CHARS}}}")


def parse_name(name: str, collection: str, *, field: str = "name") -> str:
    """The id in "{collection}/{id}"."""
    head, _, tail = name.partition("/")
    if head != collection or not tail:
        raise InvalidArgument(f"{field}: {name!r} must look like '{collection}/…'", field=field)
    return check_id(tail, field=field)


@dataclass(frozen=True, slots=True)
class VersionName:
    """The parts of "models/{id}/versions/{number}" or "datasets/{id}/versions/{number}"."""

    collection: str
    id: str
    number: int

    def __str__(self) -> str:
        return f"{self.parent}/versions/{self.number}"

    @property
    def parent(self) -> str:
        return f"{self.collection}/{self.id}"

    @classmethod
    def parse(cls, name: str, *, field: str = "name") -> VersionName:
        parts = name.split("/")
        if len(parts) != 4 or parts[0] not in COLLECTIONS or parts[2] != "versions":
            raise InvalidArgument(
                f"{field}: {name!r} is not a version name such as 'models/assistant/versions/3'", field=field
            )
        return cls(parts[0], check_id(parts[1], field=field), check_number(parts[3], field=field))


@dataclass(frozen=True, slots=True)
class AliasName:
    """The parts of "models/{model}/aliases/{alias}"; `parent` is "models/{model}"."""

    parent: str
    alias: str

    def __str__(self) -> str:
        return f"{self.parent}/aliases/{self.alias}"

    @classmethod
    def parse(cls, name: str, *, field: str = "name") -> AliasName:
        parts = name.split("/")
        if len(parts) != 4 or parts[0] != "models" or parts[2] != "aliases":
            raise InvalidArgument(
                f"{field}: {name!r} is not an alias name such as 'models/assistant/aliases/default'", field=field
            )
        return cls(f"models/{check_id(parts[1], field=field)}", check_id(parts[3], field=field))


@dataclass(frozen=True, slots=True)
class EngineName:
    """The parts of "{model}--{12 hex digits}", by which an engine knows a version.

    Safe as a file name and in a URL; nothing else may reach a path or an engine.
    """

    model: str
    digest12: str

    def __str__(self) -> str:
        return f"{self.model}--{self.digest12}"

    @classmethod
    def of(cls, model: str, digest: str) -> EngineName:
        """The name of a model's version with this digest."""
        return cls(model, digest[:ENGINE_DIGEST_CHARS])

    @classmethod
    def parse(cls, name: str, *, field: str = "name") -> EngineName:
        model, separator, digest12 = name.rpartition("--")
        if not separator or not _DIGEST12.fullmatch(digest12):
            raise InvalidArgument(
                f"{field}: {name!r} is not an engine name; use a version's engine_name, such as 'chat--0123456789ab'",
                field=field,
            )
        return cls(check_id(model, field=field), digest12)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a public name asks for: one of alias, number, digest (or a digest prefix) in one parent.

    Of a dataset without a number: its newest version.
    """

    parent: str
    alias: str = ""
    number: int = 0
    digest: str = ""

    @property
    def immutable(self) -> bool:
        """Whether it can never come to mean another version."""
        return bool(self.number or self.digest)

    @classmethod
    def parse(cls, text: str, *, field: str = "reference") -> Reference:
        """Parses every form a client may use; raises InvalidArgument for anything else."""
        if text.startswith("datasets/") and text.count("/") == 1:
            return cls(parent=f"datasets/{parse_name(text, 'datasets', field=field)}")
        if text.startswith(("models/", "datasets/")):
            version = VersionName.parse(text, field=field)
            return cls(parent=version.parent, number=version.number)
        if "--" in text:
            engine = EngineName.parse(text, field=field)
            return cls(parent=f"models/{engine.model}", digest=engine.digest12)
        name, at, tail = text.partition("@")
        if tail.startswith("sha256:"):
            return cls(_model(name, field), digest=check_sha256(tail.removeprefix("sha256:"), field=field))
        if at:
            return cls(_model(name, field), alias=check_id(tail, field=field))
        name, colon, number = text.partition(":")
        if colon:
            return cls(_model(name, field), number=check_number(number, field=field))
        return cls(_model(name, field), alias=DEFAULT_ALIAS)


def _model(model_id: str, field: str) -> str:
    return f"models/{check_id(model_id, field=field)}"
