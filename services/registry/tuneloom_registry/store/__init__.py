"""The registry's metadata. Every public method is one short transaction; invariants live here."""

from tuneloom_registry.store.builds import BuildStore
from tuneloom_registry.store.objects import ObjectStoreRecord
from tuneloom_registry.store.versions import VersionStore

__all__ = ["BuildStore", "ObjectStoreRecord", "VersionStore"]
