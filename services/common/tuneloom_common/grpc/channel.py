"""Channels that send the token and the current request id with every call."""

from __future__ import annotations

from typing import Any

import grpc

from tuneloom_common import logging
from tuneloom_common.addresses import is_several
from tuneloom_common.grpc.options import OPTIONS
from tuneloom_common.grpc.renewal import RenewedChannel
from tuneloom_common.tls import PeerTls


def open_channel(
    address: str, *, token: str | None, service_config: str = "", tls: PeerTls | None = None
) -> grpc.aio.Channel:
    """A channel that sends the token and the current request id with every call, in plain text without `tls`.

    `address` is one of gRPC's: host:port, or where a service runs several times `dns:///name:port` or
    `ipv4:1.2.3.4:1,1.2.3.5:1`; then calls go to each in turn, and past those that are away.
    `service_config` is gRPC's own, as JSON: which methods it repeats, and when.
    """
    options: list[tuple[str, Any]] = [*OPTIONS]
    if service_config:
        options.append(("grpc.service_config", service_config))
    if is_several(address):
        options.append(("grpc.lb_policy_name", "round_robin"))
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=_interceptors(token))
    if tls.server_name:
        options += [("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name)]
    return RenewedChannel(
        tls.credentials(),
        lambda credentials: grpc.aio.secure_channel(
            address, credentials, options=options, interceptors=_interceptors(token)
        ),
    )


def _interceptors(token: str | None) -> list[grpc.aio.ClientInterceptor]:
    return [_UnaryHeaders(token), _UnaryStreamHeaders(token), _StreamUnaryHeaders(token)]


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
