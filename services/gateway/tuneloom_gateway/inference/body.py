"""Reading a request's body: no more of it and no more of them at a time than allowed. How long it may take is
the connection's matter."""

from __future__ import annotations

from starlette.types import Receive, Scope

from tuneloom_gateway.edge.context import header
from tuneloom_gateway.edge.quotas import HeldBody
from tuneloom_gateway.errors import BodyTooLarge, ClientGone


class BodyReader:
    """The limits of one body."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def read(self, scope: Scope, receive: Receive, held: HeldBody) -> bytes:
        """The whole body, accounted for in `held`. Raises BodyTooLarge before holding more than allowed."""
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large(f"is {int(declared):,} bytes")
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large(f"has more than {self._max_bytes:,} bytes")
            held.add(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self, what: str) -> BodyTooLarge:
        return BodyTooLarge(
            f"the request body {what}, the limit is {self._max_bytes:,}; send less, or raise "
            "TUNELOOM_GATEWAY_MAX_BODY_BYTES at the gateway"
        )
