"""The JSON text of one row -> its value, or why it has none."""

from __future__ import annotations

import json
from collections import Counter

from tuneloom_data.conversations import RowError


def decode(row: int, data: bytes, *, line: int = 0) -> object | RowError:
    """Decodes UTF-8 JSON. Errors are placed in `line` of the file where it is given, else by column."""
    try:
        value: object = _DECODER.decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return RowError(row, "", "not UTF-8; save the file as UTF-8", f"byte {error.start}")
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}" if line else f"column {error.colno}"
        return RowError(row, "", f"not valid JSON: {error.msg.removesuffix(' at').removesuffix(' starting')}", place)
    except _DuplicateKey as error:
        return RowError(row, "", f"the field {error.key[:40]!r} stands twice in one object; keep one")
    except ValueError:
        return RowError(row, "", "holds a number of more than 4300 digits; shorten it")
    except RecursionError:
        return RowError(row, "", "nested too deeply to be a conversation")
    except MemoryError:  # in a child whose memory is bounded
        return RowError(row, "", "needs more memory than a row may; shorten or split it")
    return value


class _DuplicateKey(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _DuplicateKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
