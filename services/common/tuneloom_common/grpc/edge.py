"""What every call passes: its caller becomes a principal, its request id is adopted, its errors are translated."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from tuneloom_common import errors, logging
from tuneloom_common.grpc.status import rich_status
from tuneloom_common.principals import EVERYBODY, Principal, Principals

HEALTH = "/grpc.health.v1.Health/"
log = structlog.get_logger()

caller: ContextVar[Principal] = ContextVar("caller", default=EVERYBODY)
"""The principal of the call that is being handled."""


class Edge(grpc.aio.ServerInterceptor):
    """`scopes` maps the paths of methods to the scope they need; what is not in it, such as reflection, needs none
    but a known token. Health needs nothing."""

    def __init__(self, domain: str, principals: Principals, scopes: Mapping[str, str]) -> None:
        self._domain = domain
        self._principals = principals
        self._scopes = scopes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())
        trace = str(metadata.get("x-request-id") or secrets.token_hex(8))

        async def admit() -> None:
            logging.request_id.set(trace)
            caller.set(await self._admit(method, metadata))

        async def fail(error: Exception, context: Any) -> None:
            if isinstance(error, grpc.aio.AbortError):
                raise error
            if not isinstance(error, errors.TuneloomError):
                log.exception(f"{method} failed unexpectedly")
                error = errors.TuneloomError(f"internal error; the server's log tells more under request id {trace}")
            await context.abort_with_status(rpc_status.to_status(rich_status(error, self._domain)))

        async def unary(request: Any, context: Any) -> Any:
            try:
                await admit()
                return await inner(request, context)
            except Exception as error:
                await fail(error, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                await admit()
                async for message in inner(request, context):
                    yield message
            except Exception as error:
                await fail(error, context)

        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            inner = handler.unary_unary
            return grpc.unary_unary_rpc_method_handler(unary, **codec)
        if handler.stream_unary:
            inner = handler.stream_unary
            return grpc.stream_unary_rpc_method_handler(unary, **codec)
        if handler.unary_stream:
            inner = handler.unary_stream
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        inner = handler.stream_stream
        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    async def _admit(self, method: str, metadata: Mapping[str, Any]) -> Principal:
        """The caller, allowed to call the method."""
        if not self._principals or method.startswith(HEALTH):
            return EVERYBODY
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        found = await self._principals.resolve(token.encode()) if scheme == "Bearer" else None
        if found is None:
            raise errors.Unauthenticated(
                "the service token is missing or wrong; send 'authorization: Bearer TOKEN' "
                "('tuneloom key --grpc' prints the one of services that 'tuneloom up' started)"
            )
        if scope := self._scopes.get(method):
            found.require(scope)
        return found
