"""What the gateway knows about one request and its answer, from the edge to the last byte."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.types import Scope

from tuneloom_common.principals import Principal
from tuneloom_gateway.routing.served import ServedVersion

NOBODY = Principal("nobody", frozenset())
_KEY = "tuneloom.context"
CONNECTION = "tuneloom.connection"  # the key in a scope under which the protocol puts itself


@dataclass(slots=True)
class RequestContext:
    """`headers` go onto the answer, whatever it will be. `status` is 0 until the answer starts.

    `route` and `model` are for the metrics; plain ASGI routes set `route` themselves.
    """

    request_id: str
    principal: Principal = NOBODY
    route: str = ""
    model: str = ""
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @classmethod
    def of(cls, scope: Scope) -> RequestContext:
        context: RequestContext = scope[_KEY]
        return context

    def attach(self, scope: Scope) -> None:
        scope[_KEY] = self

    def served_by(self, served: ServedVersion) -> None:
        """From here on the answer names the version that gives it, errors included."""
        self.model = served.model
        self.headers += served.headers


def header(scope: Scope, name: bytes) -> bytes:
    """A request header by its lower-case name, empty when absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
