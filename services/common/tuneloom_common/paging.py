"""Page sizes and opaque page tokens."""

from __future__ import annotations

import base64
import binascii

from tuneloom_common.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_DIGITS = 18


def page_limit(page_size: int) -> int:
    """How many rows to return: 0 means the default, more than the maximum means the maximum."""
    if page_size < 0:
        raise InvalidArgument("page_size: must not be negative", field="page_size")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(last_key: str) -> str:
    return base64.urlsafe_b64encode(last_key.encode()).decode()


def decode_number(token: str) -> int:
    """As decode_token, where the key is a number; 0 for the first page."""
    key = decode_token(token)
    if not key:
        return 0
    if not key.isascii() or not key.isdigit() or len(key) > MAX_DIGITS:
        raise _foreign_token()
    return int(key)


def decode_token(token: str) -> str:
    """The last key of the page before; "" for the first page."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise _foreign_token() from None


def _foreign_token() -> InvalidArgument:
    return InvalidArgument("page_token: not a token of this service; start again without it", field="page_token")
