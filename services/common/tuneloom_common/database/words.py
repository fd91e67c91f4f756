"""Text that others wrote, in a form every database keeps."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

REPLACEMENT = "\ufffd"


class Words(sa.types.TypeDecorator[str]):
    """Last words of processes and the like: PostgreSQL refuses null bytes, no encoding has half a surrogate pair."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        return "".join(REPLACEMENT if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in value)
