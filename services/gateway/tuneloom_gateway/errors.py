"""Where every error becomes an answer in OpenAI's shape; nothing else in the gateway writes an error body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from tuneloom_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TuneloomError,
    Unauthenticated,
    Unavailable,
)

RETRY_AFTER_SECONDS = 2
# Absolute paths and those that begin in a hidden directory; no routes, no parts of URLs, no resource names.
_FILE_PATH = re.compile(r"(?<![\w.:/-])(?:\.[\w.-]*)?/(?!v1/)(?:[\w.+@-]+/)+[\w.+@-]*")


class BodyTooLarge(InvalidArgument):
    """The request has more bytes than the gateway accepts."""

    default_reason = "BODY_TOO_LARGE"


class TooManyRequests(ResourceExhausted):
    """The gateway already has as many requests in flight as it may have."""

    default_reason = "RATE_LIMIT_EXCEEDED"


class EngineTimeout(Unavailable):
    """An engine accepted a request and then fell silent."""

    default_reason = "ENGINE_TIMEOUT"


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as it goes over the wire."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


# Status and OpenAI's `type`; the first entry in an error's method resolution order counts.
_KINDS: Mapping[type[BaseException], tuple[int, str]] = {
    BodyTooLarge: (413, "invalid_request_error"),
    InvalidArgument: (400, "invalid_request_error"),
    FailedPrecondition: (400, "invalid_request_error"),
    Unauthenticated: (401, "invalid_request_error"),
    PermissionDenied: (403, "invalid_request_error"),
    NotFound: (404, "invalid_request_error"),
    Aborted: (409, "invalid_request_error"),
    AlreadyExists: (409, "invalid_request_error"),
    TooManyRequests: (429, "rate_limit_error"),
    ResourceExhausted: (503, "server_error"),
    EngineTimeout: (504, "server_error"),
    Unavailable: (503, "server_error"),
    TuneloomError: (500, "server_error"),
}


def translate(error: Exception, scope: Scope) -> Answer:
    """The answer to a request that failed. Errors not meant for callers say nothing about themselves."""
    if isinstance(error, TuneloomError):
        status, kind = next(_KINDS[leaf] for leaf in type(error).__mro__ if leaf in _KINDS)
        return answer(
            status,
            error.message,
            kind=kind,
            param=error.field or None,
            code=error.reason.lower(),
            retry_after=error.metadata.get("retry_after_seconds", ""),
        )
    if isinstance(error, HTTPException):
        return _http_error(error, scope)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(400, f"{where}: {first['msg']}", param=where or None, code="invalid_argument")
    return answer(
        500,
        "the gateway failed on this request; its log has the cause under this answer's x-request-id",
        kind="server_error",
        code="internal_error",
    )


async def handle(request: Request, error: Exception) -> Response:
    """The same for the errors that FastAPI raises by itself."""
    result = translate(error, request.scope)
    response = Response(result.body, status_code=result.status)
    response.raw_headers = list(result.headers)
    return response


def answer(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    retry_after: str = "",
    extra_headers: Mapping[str, str] | None = None,
) -> Answer:
    """An error in OpenAI's shape. `retry_after` counts seconds."""
    body = encode(message, kind=kind, param=param, code=code)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry_after or status in (429, 503):
        headers.append((b"retry-after", (retry_after or str(RETRY_AFTER_SECONDS)).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers += [(name.lower().encode(), value.encode()) for name, value in (extra_headers or {}).items()]
    return Answer(status, body, tuple(headers))


def encode(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """The JSON body of an error."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="replace")


def without_paths(text: str) -> str:
    """A message from behind the gateway without the names of files there."""
    return _FILE_PATH.sub("(a file of the engine)", text)


def _http_error(error: HTTPException, scope: Scope) -> Answer:
    asked = f"{scope['method']} {scope['path'][:200]}"
    if error.status_code == 404:
        text = f"there is no {asked}; see GET /v1/models and POST /v1/chat/completions"
        return answer(404, text, code="unknown_route")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        text = f"{asked} is not allowed; use {allowed}"
        return answer(405, text, code="method_not_allowed", extra_headers=error.headers)
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return answer(error.status_code, str(error.detail), kind=kind, extra_headers=error.headers)
