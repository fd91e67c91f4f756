"""Whether a value can be written out again: as UTF-8, and without end."""

from __future__ import annotations

MAX_DEPTH = 64
_TOO_DEEP = "nested too deeply to be a conversation"
_HALF_A_PAIR = "holds half of a surrogate pair (\\ud800-\\udfff), which is no character; write the character itself"


def unwritable(value: object) -> str:
    """Why a value cannot be written out again for a template; "" when it can. Walks, so that no depth overflows."""
    if isinstance(value, str):
        return "" if _encodable(value) else _HALF_A_PAIR
    layer, depth = [value], 0
    while layer:
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        if not all(_encodable(item) for item in layer if isinstance(item, str)):
            return _HALF_A_PAIR
        inner = [item for item in layer if isinstance(item, (dict, list))]
        layer = [child for item in inner for child in (item if isinstance(item, list) else (*item, *item.values()))]
        depth += 1
    return ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
