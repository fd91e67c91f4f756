"""How long a service waits for its database, and how much of it it takes."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from tuneloom_common.settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """`lock_seconds` bound the wait for somebody else's lock."""

    lock_seconds: float = 10.0


DEFAULTS = Limits()


class DatabaseSettings(ServiceSettings):
    """Settings of services that keep metadata, beside their `database_url`."""

    database_lock_seconds: float = Field(default=DEFAULTS.lock_seconds, gt=0)
    """How long a call waits for a lock that somebody else holds, before it is UNAVAILABLE."""

    @property
    def database_limits(self) -> Limits:
        return Limits(lock_seconds=self.database_lock_seconds)
