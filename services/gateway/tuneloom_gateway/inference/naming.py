"""The model's name in answers: the client's own word for it, where the engine wrote its immutable one.

Answers are not parsed. Their bytes `"model":"ENGINE NAME"` can only be a member of an object: inside a string every
quote is escaped, so what a model says about names, its own included, is left as it is.
"""

from __future__ import annotations

import json

BACKSLASH = ord("\\")
_SPELLINGS = (b'"model":%b', b'"model": %b')


class PublicName:
    """Rewrites one answer, whole or in pieces of any size."""

    def __init__(self, engine_model: str, public: str) -> None:
        name, wanted = json.dumps(engine_model).encode(), json.dumps(public).encode()
        self._pairs = [(spelling % name, spelling % wanted) for spelling in _SPELLINGS]
        self._held = b""

    def whole(self, body: bytes) -> bytes:
        for old, new in self._pairs:
            if old in body:
                body = _replaced(body, old, new)
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
        for old, _ in self._pairs:
            start = chunk.rfind(b'"', max(0, len(chunk) - len(old) + 1))
            while start >= 0:
                if old.startswith(chunk[start:]):
                    return chunk[max(0, start - 1) :]
                start = chunk.rfind(b'"', max(0, len(chunk) - len(old) + 1), start)
        return b""


def _replaced(body: bytes, old: bytes, new: bytes) -> bytes:
    parts: list[bytes] = []
    begin = 0
    while (at := body.find(old, begin)) >= 0:
        escaped = at > 0 and body[at - 1] == BACKSLASH
        parts += (body[begin:at], old if escaped else new)
        begin = at + len(old)
    return b"".join((*parts, body[begin:]))
