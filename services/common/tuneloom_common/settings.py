"""Settings are read once, at the composition root, from the environment; a bad value stops the start by name."""

from __future__ import annotations

import json
import sys
from typing import Any, TypeVar, get_origin

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

S = TypeVar("S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """Base of every service's settings: frozen, prefix given by the subclass. Lists are JSON."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", enable_decoding=False)

    @field_validator("*", mode="before")
    @classmethod
    def _decoded(cls, value: Any, info: ValidationInfo) -> Any:
        """A list from its variable. The settings library would tell of a bad one in words only."""
        field = cls.model_fields[info.field_name or ""]
        if not isinstance(value, str) or get_origin(field.annotation) is not tuple or NoDecode in field.metadata:
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise PydanticCustomError("json", 'must be JSON, such as ["a", "b"]') from None


def load(settings_class: type[S]) -> S:
    """Reads the settings, or exits with status 2 and one line per bad variable."""
    prefix = settings_class.model_config.get("env_prefix", "")
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            variable = prefix + "__".join(str(part) for part in problem["loc"]).upper()
            print(f"{variable}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
