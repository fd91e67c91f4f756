"""Composes where versions come from: the registry, the object store, the caches of this machine."""

from __future__ import annotations

from tuneloom_client.registry import RegistryClient
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.objects import ObjectStore
from tuneloom_engine.adapters import Adapters
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.cache import VersionCache
from tuneloom_engine.settings import ResolverSettings

REGISTRY_TIMEOUT_SECONDS = 10


def open_registry(settings: ResolverSettings) -> RegistryClient:
    """To be called inside the event loop."""
    return settings.open_registry(timeout_seconds=REGISTRY_TIMEOUT_SECONDS)


def open_objects(settings: ResolverSettings) -> ObjectStore:
    """Only read from here."""
    return ObjectStore(settings.objects_url, settings.s3)


def open_cache(settings: ResolverSettings) -> VersionCache:
    """The versions on this machine."""
    most = settings.blob_cache_bytes
    blobs = BlobCache(open_objects(settings), settings.blob_cache_dir, max_bytes=most)
    return VersionCache(blobs, settings.cache_dir, max_bytes=most)


def open_adapters(settings: ResolverSettings) -> Adapters:
    """For an engine that asks the registry itself."""
    artifacts = Artifacts(open_registry(settings), open_cache(settings))
    return Adapters(artifacts, max_lora_rank=settings.max_lora_rank)
