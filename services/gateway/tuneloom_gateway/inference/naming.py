"""The model's name in answers: the client's own word for it, where the engine wrote its immutable one.

Answers are not parsed. Their bytes `"model":"ENGINE NAME"` can only be a member of an object: inside a string every
quote is escaped, so what a model says about names, its own included, is left as it is.
"""

from __future__ import annotations

import json
from functools import lru_cache

BACKSLASH = ord("\\")
_SPELLINGS = (b'"model":%b', b'"model": %b')


class PublicName:
    """Rewrites one answer, whole or in pieces of any size."""

    def __init__(self, engine_model: str, public: str) -> None:
        self._pairs = _pairs(engine_model, public)
        self._held = b""

    def whole(self, body: bytes) -> bytes:
        for pair in self._pairs:
            at = body.find(pair[0])
            if at > 0 and body[at - 1] != BACKSLASH:
                self._pairs = (pair,)  # engines keep to one spelling
                return _replaced(body, *pair, at)
            if at >= 0:
                body = _replaced(body, *pair, at)
        return body

    def piece(self, chunk: bytes) -> bytes:
        """What can be sent on of everything so far: all of it, but for an end that may be the beginning of a name."""
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        chunk = self.whole(chunk)
        if not chunk.endswith(b"\n"):  # events end in an empty line, so this is rare
            self._held = self._beginning(chunk)
            if self._held:
                chunk = chunk[: -len(self._held)]
        return chunk

    def rest(self) -> bytes:
        """What was held back until the end."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, chunk: bytes) -> bytes:
        """The longest end of the chunk that begins a name, with the byte before it, which may be a backslash."""
        if chunk.endswith(b"\\"):
            return chunk[-1:]
        first = len(chunk)
        for old, _ in self._pairs:
            start = chunk.find(b'"', max(0, len(chunk) - len(old) + 1))
            while 0 <= start < first:
                if old.startswith(chunk[start:]):
                    first = start
                start = chunk.find(b'"', start + 1)
        return chunk[max(0, first - 1) :] if first < len(chunk) else b""


@lru_cache(maxsize=4096)
def _pairs(engine_model: str, public: str) -> tuple[tuple[bytes, bytes], ...]:
    name, wanted = json.dumps(engine_model).encode(), json.dumps(public).encode()
    return tuple((spelling % name, spelling % wanted) for spelling in _SPELLINGS)


def _replaced(body: bytes, old: bytes, new: bytes, at: int) -> bytes:
    parts: list[bytes] = []
    begin = 0
    while at >= 0:
        escaped = at > 0 and body[at - 1] == BACKSLASH
        parts += (body[begin:at], old if escaped else new)
        begin = at + len(old)
        at = body.find(old, begin)
    parts.append(body[begin:])
    return b"".join(parts)
