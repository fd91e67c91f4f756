"""The registry's one question that engines ask, over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from tuneloom.registry.v1.registry_pb2 import ResolveVersionRequest
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom.registry.v1.versions_pb2 import Version
from tuneloom_common.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TuneloomError,
    Unauthenticated,
    Unavailable,
)
from tuneloom_common.grpc import translated

REGISTRY_TIMEOUT_SECONDS = 10


class GrpcRegistry:
    """The registry service at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = RegistryServiceStub(channel)

    async def resolve(self, name: str) -> Version:
        with _registry_at_fault():
            version: Version = await self._stub.ResolveVersion(
                ResolveVersionRequest(reference=name), timeout=REGISTRY_TIMEOUT_SECONDS
            )
            return version


@contextmanager
def _registry_at_fault() -> Iterator[None]:
    """What is wrong with the registry or with our own token is not the fault of the name."""
    try:
        with translated("registry"):
            yield
    except (Unauthenticated, PermissionDenied):
        raise Unavailable(
            "the registry refused the engine's token; set TUNELOOM_ENGINE_REGISTRY_TOKEN to one with the scope "
            "registry:read",
            reason="REGISTRY_REFUSED",
        ) from None
    except (InvalidArgument, NotFound) as error:
        raise NotFound(error.message, reason=error.reason) from None
    except TuneloomError as error:
        if type(error) is not TuneloomError:
            raise
        raise Unavailable(
            f"the registry failed or took too long ({error.message[:200]}); its log has the cause",
            reason="REGISTRY_FAILED",
        ) from None
