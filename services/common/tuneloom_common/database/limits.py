"""How long a service waits for its database, and how much of it it takes."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tuneloom_common.settings import ServiceSettings

KINDS = ("sqlite+aiosqlite", "postgresql", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class Limits:
    """`lock_seconds` bound the wait for somebody else's lock and for a free connection, `statement_seconds` one
    statement. `connections` and `statement_seconds` are PostgreSQL's."""

    lock_seconds: float = 10.0
    statement_seconds: float = 30.0
    connections: int = 10


DEFAULTS = Limits()


class DatabaseSettings(ServiceSettings):
    """Settings of services that keep metadata. Each has a default of its own for the URL."""

    database_url: SecretStr
    """sqlite+aiosqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; the password may be in PGPASSFILE instead."""
    database_connections: int = Field(default=DEFAULTS.connections, ge=2, le=1000)
    """At most so many connections to PostgreSQL, beside two for notifications."""
    database_lock_seconds: float = Field(default=DEFAULTS.lock_seconds, gt=0)
    """How long a call waits for a lock or a connection that somebody else holds, before it is UNAVAILABLE."""
    database_statement_seconds: float = Field(default=DEFAULTS.statement_seconds, gt=0)
    """How long one statement may take in PostgreSQL."""

    @field_validator("database_url")
    @classmethod
    def _of_a_known_kind(cls, value: SecretStr) -> SecretStr:
        kind = value.get_secret_value().partition("://")[0]
        if kind not in KINDS:
            raise PydanticCustomError("database_url", "must begin with sqlite+aiosqlite:/// or postgresql://")
        try:
            make_url(value.get_secret_value())
        except (ValueError, ArgumentError):  # which may quote a part of the password
            told = "is no URL; special characters in a password are written as %40 for @, %3A for :, %2F for /"
            raise PydanticCustomError("database_url", told) from None
        return value

    @property
    def database_limits(self) -> Limits:
        return Limits(self.database_lock_seconds, self.database_statement_seconds, self.database_connections)
