"""The gRPC edge: servers with health, reflection, tokens and rich errors; channels that speak the same."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from tuneloom_common import errors, logging

MAX_MESSAGE_BYTES = 16 << 20
SHUTDOWN_GRACE_SECONDS = 3
MAX_ERROR_BYTES = 1200
OPEN_METHODS = ("/grpc.health.v1.Health/",)
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    # Servers by default end connections that ping on idle streams ("too_many_pings"), such as a watch's.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Clients by default wait up to two minutes before they try a restarted server again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.so_reuseport", 0),
]
log = structlog.get_logger()


async def build_server(
    *, domain: str, token: str | None, services: Sequence[tuple[str, Callable[[grpc.aio.Server], None]]]
) -> grpc.aio.Server:
    """A server with health and reflection. `services` pairs a full service name with its registration."""
    server = grpc.aio.server(interceptors=[_Edge(domain, token)], options=OPTIONS)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = [name for name, _ in services]
    for _, register in services:
        register(server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    for name in ("", *names):
        await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server


def stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, from now on; ask for it before the start so that no signal is lost."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_until(stop: asyncio.Event, server: grpc.aio.Server, work: Coroutine[Any, Any, None]) -> None:
    """Runs a started server's background work until the event, then cancels it and closes the server.

    Work that ends by itself has failed: its error is raised.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await server.stop(SHUTDOWN_GRACE_SECONDS)


def bind(server: grpc.aio.Server, address: str, *, setting: str) -> int:
    """Binds the address and returns the port; a taken port is named together with the setting to change."""
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise errors.FailedPrecondition(
            f"{address} is in use or cannot be bound; stop what listens there or set {setting}",
            reason="PORT_IN_USE",
        )
    return port


def open_channel(address: str, *, token: str | None) -> grpc.aio.Channel:
    """A channel that sends the token and the current request id with every call."""
    return grpc.aio.insecure_channel(
        address,
        options=OPTIONS,
        interceptors=[_UnaryHeaders(token), _UnaryStreamHeaders(token), _StreamUnaryHeaders(token)],
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns a failed call into our own error, with the server's message; `what` names the service."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, what) from None


def from_rpc_error(error: grpc.aio.AioRpcError, what: str) -> errors.TuneloomError:
    """The error the server raised, as far as its status tells."""
    if error.code() == grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        return errors.Unavailable(f"the {what} does not answer; is it running? Start it with 'tuneloom up'")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"the {what} did not answer in time; try again", reason="TIMEOUT")
    leaf = errors.BY_CODE.get(error.code().name, errors.TuneloomError)
    reason, field, metadata = None, "", {}
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    return leaf(error.details() or error.code().name, reason=reason, field=field, metadata=metadata)


def _rich_status(error: errors.TuneloomError, domain: str) -> status_pb2.Status:
    message = _clipped(error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    details = [any_pb2.Any()]
    details[0].Pack(info)
    if isinstance(error, errors.InvalidArgument):
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field, description=message)
        details.append(any_pb2.Any())
        details[1].Pack(bad)
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=details)


def _clipped(message: str) -> str:
    """At most MAX_ERROR_BYTES: a status travels as headers, three times over, and gRPC drops headers above 8 KiB."""
    data = message.encode()
    return message if len(data) <= MAX_ERROR_BYTES else data[: MAX_ERROR_BYTES - 3].decode(errors="ignore") + "…"


class _Edge(grpc.aio.ServerInterceptor):
    """Checks the token, adopts the request id and translates domain errors, for every call."""

    def __init__(self, domain: str, token: str | None) -> None:
        self._domain = domain
        self._expected = f"Bearer {token}".encode() if token else None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        metadata = dict(handler_call_details.invocation_metadata or ())
        allowed = self._allows(handler_call_details.method, metadata)
        trace = str(metadata.get("x-request-id") or secrets.token_hex(8))

        async def fail(error: Exception, context: Any) -> None:
            if isinstance(error, grpc.aio.AbortError):
                raise error
            if not isinstance(error, errors.TuneloomError):
                log.exception(f"{handler_call_details.method} failed unexpectedly")
                error = errors.TuneloomError(f"internal error; the server's log tells more under request id {trace}")
            await context.abort_with_status(rpc_status.to_status(_rich_status(error, self._domain)))

        async def unary(request: Any, context: Any) -> Any:
            logging.request_id.set(trace)
            try:
                self._check(allowed)
                return await inner(request, context)
            except Exception as error:
                await fail(error, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            logging.request_id.set(trace)
            try:
                self._check(allowed)
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
        return handler if allowed else None

    def _allows(self, method: str, metadata: dict[str, Any]) -> bool:
        if self._expected is None or method.startswith(OPEN_METHODS):
            return True
        return hmac.compare_digest(str(metadata.get("authorization", "")).encode(), self._expected)

    @staticmethod
    def _check(allowed: bool) -> None:
        if not allowed:
            raise errors.Unauthenticated("the service token is missing or wrong; send 'authorization: Bearer <token>'")


class _Headers:
    def __init__(self, token: str | None) -> None:
        self._token = token

    def _with_headers(self, details: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._token:
            metadata.add("authorization", f"Bearer {self._token}")
        if current := logging.request_id.get():
            metadata.add("x-request-id", current)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryHeaders(_Headers, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_headers(client_call_details), request)


class _UnaryStreamHeaders(_Headers, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_headers(client_call_details), request)


class _StreamUnaryHeaders(_Headers, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._with_headers(client_call_details), request_iterator)
