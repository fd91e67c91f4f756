"""What a connection's request may be, and what is said to one that is something else."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tuneloom_gateway.errors import answer


@dataclass(frozen=True, slots=True)
class ProtocolLimits:
    """What one request's head may be, and how long a client may take."""

    max_header_bytes: int = 32 << 10
    max_headers: int = 100
    max_request_line_bytes: int = 8 << 10
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    write_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without a request that could be understood."""

    status: int
    message: str
    code: str

    @property
    def spoken(self) -> bytes:
        """As it goes over the wire."""
        said = answer(self.status, self.message, code=self.code)
        fields = (*said.headers, (b"x-request-id", f"req-{secrets.token_hex(10)}".encode()), (b"connection", b"close"))
        head = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        return STATUS_LINE[self.status] + head + b"\r\n" + said.body
