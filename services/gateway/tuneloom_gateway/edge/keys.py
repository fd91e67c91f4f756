"""API keys. Everything needs one, except the few paths that operators' tools probe."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from tuneloom_common.errors import Unauthenticated
from tuneloom_gateway.edge.context import header
from tuneloom_gateway.settings import is_loopback

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class Authentication:
    """ASGI middleware that knows only the hashes of the keys.

    Without keys (on a loopback address only) every program on this machine is let in, but no web page:
    neither one of another site nor one that pretends to be this one by rebinding its name.
    """

    def __init__(self, app: ASGIApp, *, key_sha256s: Sequence[str]) -> None:
        self._app = app
        self._hashes = [bytes.fromhex(digest) for digest in key_sha256s]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            if self._hashes:
                self._check_key(header(scope, b"authorization"))
            else:
                _check_local(header(scope, b"host"), header(scope, b"sec-fetch-site"))
        await self._app(scope, receive, send)

    def _check_key(self, authorization: bytes) -> None:
        scheme, _, key = authorization.partition(b" ")
        presented = hashlib.sha256(key.strip()).digest()
        # All are compared, so the time tells nothing about which is close.
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        if scheme.lower() != b"bearer" or not any(matches):
            problem = "the API key is not known here" if key else "there is no API key in this request"
            raise Unauthenticated(
                f"{problem}; send 'Authorization: Bearer KEY' with a key whose sha256 is in "
                "TUNELOOM_GATEWAY_API_KEY_SHA256S (OpenAI clients: set api_key or OPENAI_API_KEY)",
                reason="INVALID_API_KEY",
            )


def _check_local(host: bytes, fetch_site: bytes) -> None:
    name = host.decode("latin-1").lower()
    name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
    if fetch_site == b"cross-site" or (name and not is_loopback(name)):
        raise Unauthenticated(
            "this gateway has no API keys and therefore answers only programs on its own machine, called as "
            "localhost; set TUNELOOM_GATEWAY_API_KEY_SHA256S to let others in",
            reason="LOCAL_ONLY",
        )
