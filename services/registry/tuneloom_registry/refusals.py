"""Why a transform ends without a result."""

from __future__ import annotations


class Refusal(Exception):
    """The inputs cannot give a sound result; repeating the transform would fail the same way."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
