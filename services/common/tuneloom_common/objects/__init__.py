"""Object storage: content-addressed blobs, manifests written last.

Layout: `blobs/sha256/<hex>` and `manifests/<digest>.json`. Blobs and manifests are immutable and created with
put-if-absent; readers follow a manifest, never a prefix listing, and verify every byte against its hash.
"""

from tuneloom_common.objects.files import CHUNK_BYTES, hash_file, sync
from tuneloom_common.objects.identity import MARKER
from tuneloom_common.objects.store import ObjectStore

__all__ = ["CHUNK_BYTES", "MARKER", "ObjectStore", "hash_file", "sync"]
