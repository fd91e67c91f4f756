"""`python -m tuneloom_common.probe URL [VARIABLE]`: whether a service answers; exit status 0 or 1, for a health check.

`http://host:port/path` must answer 200; `grpc://host:port` must say SERVING by gRPC's own health protocol. Where the
setting VARIABLE names the service's certificate, a handshake is enough: the service may let in nobody it does not know.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 4.0


def problem(url: str, *, secured: bool = False) -> str:
    """Why the service is not well; empty when it is."""
    try:
        if secured:
            return _handshake(url)
        return _grpc(url) if urlsplit(url).scheme == "grpc" else _http(url)
    except OSError as error:
        return f"{url} does not answer: {error}"


def _handshake(url: str) -> str:
    address = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a question to ourselves
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((address.hostname or "", address.port or 0), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain),
    ):
        return ""


def _http(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the operator's own URL
        return "" if response.status == 200 else f"{url} answers with status {response.status}"


def _grpc(url: str) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(urlsplit(url).netloc) as channel:
        ask = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        try:
            answer = ask(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return f"{url} does not answer: {error.code().name}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else f"{url} is not serving"


def main() -> int:
    url, *variables = sys.argv[1:]
    found = problem(url, secured=any(os.environ.get(variable) for variable in variables))
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
