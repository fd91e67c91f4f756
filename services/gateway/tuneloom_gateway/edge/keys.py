"""Who calls, and with which scope: everything needs a key, except the few paths that operators' tools probe."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from tuneloom_common import logging
from tuneloom_common.addresses import is_loopback
from tuneloom_common.errors import Unauthenticated
from tuneloom_common.principals import EVERYBODY, Principal, Principals
from tuneloom_gateway.edge.context import RequestContext, header

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class Authentication:
    """ASGI middleware that knows only the hashes of the keys.

    Without keys (on a loopback address only) every program on this machine is let in, but no web page:
    neither one of another site nor one that pretends to be this one by rebinding its name.
    """

    def __init__(self, app: ASGIApp, *, principals: Principals) -> None:
        self._app = app
        self._principals = principals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            if self._principals:
                principal = self._known(header(scope, b"authorization"))
            else:
                principal = _local(header(scope, b"host"), header(scope, b"sec-fetch-site"))
            RequestContext.of(scope).principal = principal
            logging.principal_id.set(principal.id)
            principal.require(required_scope(scope["path"]))
        await self._app(scope, receive, send)

    def _known(self, authorization: bytes) -> Principal:
        scheme, _, key = authorization.partition(b" ")
        principal = self._principals.find(key.strip())
        if principal is None or scheme.lower() != b"bearer":
            problem = "the API key is not known here" if key else "there is no API key in this request"
            raise Unauthenticated(
                f"{problem}; send 'Authorization: Bearer KEY' (OpenAI clients: set api_key or OPENAI_API_KEY). "
                "On this machine 'tuneloom key' prints the key; elsewhere ask for one whose sha256 is in "
                "TUNELOOM_GATEWAY_API_KEY_SHA256S or TUNELOOM_GATEWAY_PRINCIPALS",
                reason="INVALID_API_KEY",
            )
        return principal


def required_scope(path: str) -> str:
    """What a caller must be allowed to do to get anything from this path, an error included."""
    return "models:read" if path == "/v1/models" or path.startswith("/v1/models/") else "inference"


def _local(host: bytes, fetch_site: bytes) -> Principal:
    name = host.decode("latin-1").lower()
    name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
    if fetch_site == b"cross-site" or (name and not is_loopback(name)):
        raise Unauthenticated(
            "this gateway has no API keys and therefore answers only programs on its own machine, called as "
            "localhost; set TUNELOOM_GATEWAY_API_KEY_SHA256S to let others in",
            reason="LOCAL_ONLY",
        )
    return EVERYBODY
