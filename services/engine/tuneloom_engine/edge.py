"""The host's door: who may ask, by which name, with what; and how errors are told.

Web pages must not reach it: neither a page of another site that posts here, nor one that rebinds its own name to this
address. Programs need a token with the scope `engines:use`, when there are tokens at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from tuneloom_common.addresses import is_loopback
from tuneloom_common.errors import InvalidArgument, PermissionDenied, TuneloomError, Unauthenticated
from tuneloom_common.principals import EVERYBODY, Principal, Principals
from tuneloom_engine.failures import EngineFailed
from tuneloom_engine.settings import HostSettings

DOOR: web.AppKey[Door] = web.AppKey("door")
OPEN_PATHS = frozenset({"/healthz"})
SCOPE = "engines:use"
STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
}
log = structlog.get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """Raises for a request that may not come in; knows which connections have one."""

    def __init__(self, settings: HostSettings) -> None:
        self._principals = Principals(settings.principals, admin_token=settings.token)
        self._names = frozenset(name.lower() for name in (settings.host, *settings.allowed_hosts))
        self._asking: set[RequestHandler] = set()
        # Elsewhere than on loopback only tokens count, unless the operator says by which names the host is called.
        self._any_name = not is_loopback(settings.host) and not settings.allowed_hosts

    def noticed(self, request: web.Request) -> None:
        """A connection has come to its request."""
        connection = request.protocol
        self._asking.add(connection)
        request.task.add_done_callback(lambda _: self._asking.discard(connection))

    def is_asking(self, connection: RequestHandler) -> bool:
        """Whether a request has come in on this connection."""
        return connection in self._asking

    def check(self, request: web.Request) -> None:
        self._check_host(request.headers.get("Host", ""))
        _check_site(request)
        if request.can_read_body:
            raise InvalidArgument(
                f"{request.method} {request.path} takes no body; send the request without one", reason="BODY_NOT_TAKEN"
            )
        if request.path not in OPEN_PATHS:
            self._caller(request.headers.get("Authorization", "")).require(SCOPE)

    def _check_host(self, header: str) -> None:
        name = _host_name(header)
        if name and not (self._any_name or name in self._names or is_loopback(name)):
            raise PermissionDenied(
                f"this engine host is not called {name[:80]!r}; use localhost, or add the name to "
                "TUNELOOM_ENGINE_ALLOWED_HOSTS",
                reason="FOREIGN_HOST",
            )

    def _caller(self, authorization: str) -> Principal:
        if not self._principals:
            return EVERYBODY
        scheme, _, token = authorization.partition(" ")
        found = self._principals.find(token.strip().encode()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Unauthenticated(
                f"the engine host's token is {'not known here' if token else 'missing'}; send 'Authorization: Bearer "
                "TOKEN' with the one in TUNELOOM_ENGINE_TOKEN (gateway: TUNELOOM_GATEWAY_ENGINE_HOST_TOKEN)",
                reason="INVALID_TOKEN",
            )
        return found


def guarded(door: Door) -> Any:
    """Middleware: errors as JSON, the door, one request per connection."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        door.noticed(request)
        try:
            door.check(request)
            response = await handler(request)
        except TuneloomError as error:
            response = answer(error)
        except web.HTTPException as error:
            text = f"{request.method} {request.path}: {error.reason}"
            response = web.json_response(
                {"error": text, "reason": error.reason.upper().replace(" ", "_")}, status=error.status
            )
        except Exception:
            log.exception(f"{request.method} {request.path} failed unexpectedly")
            response = answer(TuneloomError("internal error; the engine host's log tells more"))
        response.force_close()
        return response

    return guard


def answer(error: TuneloomError) -> web.Response:
    """The error for programs and people."""
    told: dict[str, Any] = {"error": error.message, "reason": error.reason, "code": error.code, **error.metadata}
    if isinstance(error, EngineFailed):
        told |= error.describe()
    return web.json_response(told, status=STATUS.get(error.code, 500))


def _check_site(request: web.Request) -> None:
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower()
    if foreign or site not in ("none", "same-origin"):
        raise PermissionDenied("web pages of other sites may not use the engine host", reason="CROSS_SITE")


def _host_name(header: str) -> str:
    """Without the port: "[::1]:80" is "::1"."""
    name = header.strip().lower()
    return name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
