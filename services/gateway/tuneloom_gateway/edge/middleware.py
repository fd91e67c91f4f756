"""The outermost layer: request ids, headers on every answer, errors in OpenAI's shape, and the measuring."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneloom_common import logging
from tuneloom_common.errors import TuneloomError
from tuneloom_gateway.edge.context import RequestContext, header
from tuneloom_gateway.errors import ClientGone, translate
from tuneloom_gateway.metrics import Metrics

CLIENT_GONE_STATUS = 499
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
log = structlog.get_logger()


class Edge:
    """ASGI middleware. A client's own `x-request-id` is adopted when it is safe to log and to forward."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        context = RequestContext(_request_id(scope))
        context.attach(scope)
        logging.request_id.set(context.request_id)
        streaming = False

        async def reply(message: Message) -> None:
            nonlocal streaming
            if message["type"] == "http.response.start":
                context.status = message["status"]
                request_id = (b"x-request-id", context.request_id.encode())
                message["headers"] = [*message.get("headers", ()), request_id, *context.headers]
            elif not streaming and message.get("more_body"):
                streaming = True
                self._metrics.first_byte_seconds.labels(_route(scope, context)).observe(time.perf_counter() - began)
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, reply)
        except ClientGone:
            context.status = CLIENT_GONE_STATUS
        except Exception as error:
            await _answer(error, context, scope, reply)
        finally:
            self._metrics.in_flight.dec()
            route = _route(scope, context)
            self._metrics.requests.labels(route, context.model, str(context.status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)


async def _answer(error: Exception, context: RequestContext, scope: Scope, reply: Send) -> None:
    if context.status:
        raise error  # too late for another answer: the server closes the connection
    answer = translate(error, scope)
    if isinstance(error, TuneloomError):
        if answer.status >= 500:
            log.warning(f"request failed: {error.message}", path=scope["path"], reason=error.reason)
    else:
        log.error("request failed", path=scope["path"], exc_info=error)
    await reply({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
    await reply({"type": "http.response.body", "body": answer.body})


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given.decode() if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(10)}"


def _route(scope: Scope, context: RequestContext) -> str:
    return context.route or getattr(scope.get("route"), "path", "none")
