"""The tokens of a local installation: each service holds only its own, and may do only what it needs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields

# Who may do what at whose door. The owner is whoever can read this home: the command line.
SCOPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "registry": {
        "owner": ("registry:read", "registry:write"),
        "trainer": ("registry:read", "registry:write", "registry:fence"),
        "gateway": ("registry:read",),
        "engine": ("registry:read",),
    },
    "trainer": {"owner": ("trainer:read", "trainer:write")},
    "engine": {"owner": ("engines:use",), "gateway": ("engines:use",)},
}


@dataclass(frozen=True, slots=True)
class Keys:
    """`trainer`, `gateway` and `engine` are what these services send to the registry, `gateway_engine` what the
    gateway sends to the engine host."""

    trainer: str
    gateway: str
    engine: str
    gateway_engine: str

    @classmethod
    def stored(cls, known: Mapping[str, str]) -> Keys:
        """The known ones, and fresh ones for those that are missing."""
        return cls(**{each.name: known.get(each.name) or secrets.token_urlsafe(32) for each in fields(cls)})


def principals(service: str, *, owner: str, keys: Keys) -> list[dict[str, object]]:
    """Whom a service knows, as its setting PRINCIPALS has it: hashes, never tokens."""
    tokens = {
        "owner": owner,
        "trainer": keys.trainer,
        "gateway": keys.gateway_engine if service == "engine" else keys.gateway,
        "engine": keys.engine,
    }
    return [
        {"id": who, "token_sha256": hashlib.sha256(tokens[who].encode()).hexdigest(), "scopes": list(scopes)}
        for who, scopes in SCOPES[service].items()
    ]


def principals_setting(service: str, *, owner: str, keys: Keys, configured: str) -> str:
    """PRINCIPALS for a service's environment: ours, after those the user configured as a JSON list."""
    from tuneloom_common.errors import InvalidArgument

    try:
        theirs = json.loads(configured or "[]")
    except ValueError:
        theirs = None
    if not isinstance(theirs, list):
        raise InvalidArgument(f"TUNELOOM_{service.upper()}_PRINCIPALS: must be a JSON list of principals")
    return json.dumps([*theirs, *principals(service, owner=owner, keys=keys)])
