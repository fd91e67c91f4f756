"""Composes where versions come from: the registry, the object store, the caches of this machine."""

from __future__ import annotations

import grpc.aio

from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.grpc import open_channel
from tuneloom_common.objects import ObjectStore
from tuneloom_engine.adapters import Adapters
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.cache import VersionCache
from tuneloom_engine.registry import GrpcRegistry
from tuneloom_engine.settings import ResolverSettings


def open_registry(settings: ResolverSettings) -> grpc.aio.Channel:
    """To be called inside the event loop."""
    token = settings.registry_token.get_secret_value() if settings.registry_token else None
    return open_channel(settings.registry_address, token=token)


def open_cache(settings: ResolverSettings) -> VersionCache:
    """The versions on this machine."""
    most = settings.blob_cache_max_bytes
    blobs = BlobCache(
        ObjectStore(settings.objects_url), settings.blob_cache_dir or settings.cache_dir / "blobs", max_bytes=most
    )
    return VersionCache(blobs, settings.cache_dir, max_bytes=most)


def open_adapters(settings: ResolverSettings) -> Adapters:
    """For an engine that asks the registry itself."""
    artifacts = Artifacts(GrpcRegistry(open_registry(settings)), open_cache(settings))
    return Adapters(artifacts, max_lora_rank=settings.max_lora_rank)
