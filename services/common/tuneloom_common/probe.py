"""`python -m tuneloom_common.probe URL`: whether a service answers; exit status 0 or 1, for a container's health check.

`http://host:port/path` must answer 200; `grpc://host:port` must say SERVING by gRPC's own health protocol.
"""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 4.0


def problem(url: str) -> str:
    """Why the service is not well; empty when it is."""
    try:
        return _grpc(url) if urlsplit(url).scheme == "grpc" else _http(url)
    except OSError as error:
        return f"{url} does not answer: {error}"


def _http(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the operator's own URL
        return "" if response.status == 200 else f"{url} answers with status {response.status}"


def _grpc(url: str) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(urlsplit(url).netloc) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            return f"{url} does not answer: {error.code().name}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else f"{url} is not serving"


def main() -> int:
    found = problem(sys.argv[1])
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
