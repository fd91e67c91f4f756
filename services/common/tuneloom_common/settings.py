"""Settings are read once, at the composition root, from the environment; a bad value stops the start by name."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

S = TypeVar("S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """Base of every service's settings: frozen, prefix given by the subclass."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


def load(settings_class: type[S]) -> S:
    """Reads the settings, or exits with status 2 and one line per bad variable."""
    prefix = settings_class.model_config.get("env_prefix", "")
    try:
        return settings_class()
    except SettingsError as error:  # its message quotes the name of the field, not the value
        field = str(error).split('"')[1]
        print(f'{prefix}{field.upper()}: must be JSON, such as ["a", "b"]', file=sys.stderr)
        raise SystemExit(2) from None
    except ValidationError as error:
        for problem in error.errors():
            variable = prefix + "__".join(str(part) for part in problem["loc"]).upper()
            print(f"{variable}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
