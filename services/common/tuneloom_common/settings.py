"""Settings are read once, at the composition root; a bad value stops the start by name.

They come from the environment and, where TUNELOOM_SECRETS_DIR names a directory, from the files in it: each is called
like the variable it stands for. The environment wins.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SECRETS_DIR = "TUNELOOM_SECRETS_DIR"
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
    secrets = os.environ.get(SECRETS_DIR) or None
    if secrets and not Path(secrets).is_dir():
        print(f"{SECRETS_DIR}: there is no directory {secrets}", file=sys.stderr)
        raise SystemExit(2)
    try:
        return settings_class(_secrets_dir=secrets)
    except ValidationError as error:
        for problem in error.errors():
            variable = prefix + "__".join(str(part) for part in problem["loc"]).upper()
            print(f"{variable}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None
