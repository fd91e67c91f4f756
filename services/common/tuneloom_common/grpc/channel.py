"""Channels that send the token and the current request id with every call."""

from __future__ import annotations

from typing import Any

import grpc

from tuneloom_common import logging
from tuneloom_common.grpc.options import OPTIONS


def open_channel(address: str, *, token: str | None, service_config: str = "") -> grpc.aio.Channel:
    """A channel that sends the token and the current request id with every call.

    `service_config` is gRPC's own, as JSON: which methods it repeats, and when.
    """
    return grpc.aio.insecure_channel(
        address,
        options=[*OPTIONS, ("grpc.service_config", service_config)] if service_config else OPTIONS,
        interceptors=[_UnaryHeaders(token), _UnaryStreamHeaders(token), _StreamUnaryHeaders(token)],
    )


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
