"""The registry as the gateway sees it: three questions over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc.aio

from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom.registry.v1.versions_pb2 import Model, Version
from tuneloom_common.errors import TuneloomError, Unauthenticated, Unavailable
from tuneloom_common.grpc import translated

PAGE_SIZE = 1000


class Registry(Protocol):
    """Raises NotFound or InvalidArgument for the name at fault, Unavailable when the registry is at fault."""

    async def resolve(self, reference: str) -> Version:
        """The version a public name means now."""

    async def models(self, *, at_most: int | None = None) -> list[Model]:
        """The public models by name."""

    async def watch(self, after_sequence: int) -> AsyncIterator[pb.ModelEvent]:
        """Returns once the subscription is in force: no later change will be missing from the events."""

    async def close(self) -> None:
        """Ends all calls."""


class GrpcRegistry:
    """The registry service at the other end of a channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float) -> None:
        self._channel = channel
        self._timeout = timeout_seconds
        self._stub: Any = RegistryServiceStub(channel)

    async def resolve(self, reference: str) -> Version:
        with _translated():
            request = pb.ResolveVersionRequest(reference=reference)
            version: Version = await self._stub.ResolveVersion(request, timeout=self._timeout)
            return version

    async def models(self, *, at_most: int | None = None) -> list[Model]:
        found: list[Model] = []
        token = ""
        with _translated():
            while True:
                request = pb.ListModelsRequest(page_size=at_most or PAGE_SIZE, page_token=token)
                page = await self._stub.ListModels(request, timeout=self._timeout)
                found += page.models
                token = page.next_page_token
                if not token or (at_most is not None and len(found) >= at_most):
                    return found

    async def watch(self, after_sequence: int) -> AsyncIterator[pb.ModelEvent]:
        call = self._stub.WatchModels(pb.WatchModelsRequest(after_sequence=after_sequence))
        # A registry sends its headers when it has taken its place in the stream, or with the first event.
        await call.initial_metadata()
        if call.done():
            with _translated():
                async for _ in call:
                    pass
            raise Unavailable("the registry ended the watch stream at once")
        return _events(call)

    async def close(self) -> None:
        await self._channel.close()


async def _events(call: Any) -> AsyncIterator[pb.ModelEvent]:
    try:
        with _translated():
            async for event in call:
                yield event
    finally:
        call.cancel()


@contextmanager
def _translated() -> Iterator[None]:
    """What is wrong with the registry or with the gateway's own token is not the caller's fault."""
    try:
        with translated("registry"):
            yield
    except Unauthenticated:
        raise Unavailable(
            "the registry refused the gateway's token; set TUNELOOM_GATEWAY_REGISTRY_TOKEN to its token",
            reason="REGISTRY_REFUSED",
        ) from None
    except TuneloomError as error:
        if type(error) is not TuneloomError:
            raise
        raise Unavailable(
            f"the registry failed ({error.message[:200]}); its log has the cause",
            reason="REGISTRY_FAILED",
        ) from None
