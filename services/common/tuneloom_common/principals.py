"""Who calls, and what they may do: tokens and keys become principals with scopes at every edge, HTTP and gRPC alike.

Only hashes of tokens are kept. `admin` implies every other scope.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator

from tuneloom_common.errors import PermissionDenied
from tuneloom_common.ids import is_sha256

Scope = Literal[
    "registry:read",
    "registry:write",
    "registry:fence",
    "trainer:read",
    "trainer:write",
    "trainer:report",
    "inference",
    "models:read",
    "engines:use",
    "admin",
]
SCOPES: frozenset[str] = frozenset(get_args(Scope))


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `id` is a name for logs and limits, never a secret."""

    id: str
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises PermissionDenied naming the scope that is missing."""
        if not self.allows(scope):
            raise PermissionDenied(
                f"{self.id} may not do this: it needs the scope {scope!r} and has "
                f"{', '.join(sorted(self.scopes)) or 'none'}; use a token that has it, or ask who runs this service",
                metadata={"scope": scope},
            )


# Whoever reaches a service that has no tokens at all, which listens on loopback.
EVERYBODY = Principal("everybody", frozenset({"admin"}))


class PrincipalEntry(BaseModel):
    """One principal in a service's settings; `token_sha256` is the hash of its token or key."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")
    token_sha256: str = Field(validation_alias=AliasChoices("token_sha256", "key_sha256"))
    scopes: frozenset[Scope]

    @field_validator("token_sha256")
    @classmethod
    def _hash(cls, value: str) -> str:
        if not is_sha256(value):  # it may be the token itself, so it is not shown
            raise ValueError("is not a sha256 in lower-case hex; make it with: printf %s TOKEN | sha256sum")
        return value


class IssuedTokens:
    """Tokens that this process gives out and takes back, such as a worker's for as long as its lease."""

    def __init__(self) -> None:
        self._holders: dict[bytes, Principal] = {}

    @contextmanager
    def issued(self, principal: Principal) -> Iterator[str]:
        """A fresh token that is good until the end of the block."""
        token = secrets.token_urlsafe(32)
        hashed = hashlib.sha256(token.encode()).digest()
        self._holders[hashed] = principal
        try:
            yield token
        finally:
            del self._holders[hashed]

    def find(self, hashed: bytes) -> Principal | None:
        return self._holders.get(hashed)


class Principals:
    """Principals by the hash of their token. Empty: nobody needs a token."""

    def __init__(
        self,
        entries: Iterable[PrincipalEntry] = (),
        *,
        admin_token: SecretStr | None = None,
        issued: IssuedTokens | None = None,
        elsewhere: Callable[[bytes], Awaitable[Principal | None]] | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._issued = issued or IssuedTokens()
        self._known = [
            (bytes.fromhex(entry.token_sha256), Principal(entry.id, frozenset(entry.scopes))) for entry in entries
        ]
        if admin_token is not None:
            hashed = hashlib.sha256(admin_token.get_secret_value().encode()).digest()
            self._known.append((hashed, Principal("token", frozenset({"admin"}))))

    def __bool__(self) -> bool:
        return bool(self._known)

    async def resolve(self, token: bytes) -> Principal | None:
        """As `find`, and asks `elsewhere`, by its hash, for a token that is not known here."""
        found = self.find(token)
        if found is None and self._elsewhere is not None:
            found = await self._elsewhere(hashlib.sha256(token).digest())
        return found

    def find(self, token: bytes) -> Principal | None:
        """All hashes are compared, so the time tells nothing about which is close."""
        presented = hashlib.sha256(token).digest()
        matches = [principal for known, principal in self._known if hmac.compare_digest(presented, known)]
        return matches[0] if matches else self._issued.find(presented)
