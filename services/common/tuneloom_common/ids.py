"""Identifiers, hashes and version numbers: the parts that names are made of.

Ids are `[a-z0-9][a-z0-9._-]{0,62}` without "--" and "..", so they are safe in paths, URLs and engine names.
"""

from __future__ import annotations

import re
import secrets

from tuneloom_common.errors import InvalidArgument

_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_id(prefix: str) -> str:
    """A fresh id such as "job-4k2m9x7q", about 50 random bits."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(10))


def check_id(value: str, *, field: str) -> str:
    """Returns the value when it is a well-formed id, else raises InvalidArgument naming the field."""
    if not _ID.fullmatch(value) or "--" in value or ".." in value:
        raise InvalidArgument(
            f"{field}: {value!r} is not a valid id; use 1-63 of a-z 0-9 . _ - , starting and ending with a letter "
            "or digit, without '--' or '..'",
            field=field,
        )
    return value


def is_sha256(value: str) -> bool:
    """In the one spelling that hashes have here."""
    return _SHA256.fullmatch(value) is not None


def check_sha256(value: str, *, field: str) -> str:
    """Returns the value when it is a lower-case hex sha256, else raises InvalidArgument naming the field."""
    if not is_sha256(value):
        raise InvalidArgument(f"{field}: {value!r} is not a sha256 in lower-case hex", field=field)
    return value


def check_number(value: str, *, field: str) -> int:
    """The version number in its one spelling: 1 to 999999999 without leading zeros."""
    if not _NUMBER.fullmatch(value):
        raise InvalidArgument(f"{field}: {value[:20]!r} is not a version number", field=field)
    return int(value)
