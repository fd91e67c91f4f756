"""Where objects lie: what a kind of storage does in its own way. `ObjectStore` knows what lies there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.objects.creation import Create, Store, by_store
from tuneloom_common.objects.directory import Directory
from tuneloom_common.objects.memory import Memory
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.requests import Patience
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options


class Place(Protocol):
    """`expected` is the identity that the store is known to have."""

    expected: str | None

    @property
    def store(self) -> Store: ...

    async def check(self) -> str | None:
        """The identity; raises Unavailable with the reason when the store cannot be used as it is set up."""

    async def require(self) -> None:
        """Raises Unavailable when nothing can be said about what is stored."""

    async def identity(self) -> str | None:
        """What the marker says: "" in one of an earlier release; None where there is none."""

    async def mark(self) -> str:
        """Makes this a store, unless it is one; returns its identity."""

    async def used(self) -> bool:
        """Whether blobs lie here, as in stores of releases that knew no marker."""

    async def create(self, name: str, data: bytes) -> bool:
        """Put-if-absent; whether it was this call that wrote it. What was written outlives a power cut."""

    async def overwrite(self, name: str, data: bytes) -> None:
        """The same for what may be there."""

    def stream(self, name: str) -> AsyncIterator[bytes]:
        """The object's bytes; raises FileNotFoundError."""

    async def upload(self, path: Path, name: str, *, sha256: str, size: int) -> None:
        """Stores a file of which hash and size are known."""

    async def download(self, name: str, target: Path, *, sha256: str, size: int) -> bool | None:
        """Makes an object a file that must not exist yet, in a way better than reading it as a stream: True, or False
        where its bytes are not what the hash says. None where there is no better way."""

    async def permit_upload(self, name: str, *, sha256: str, size: int, seconds: int) -> Permission | None:
        """For this content alone; None where the store cannot bind a permission to a content, or has no address."""

    def permit_download(self, name: str, *, seconds: int) -> Permission | None: ...

    def translate(self, error: Exception) -> Exception:
        """A storage library's or the system's error as one of ours."""


def open_place(
    url: str, options: S3Options | None, *, create: Create | None = None, patience: Patience | None = None
) -> Place:
    """Raises InvalidArgument for a URL that is none of ours."""
    parsed = urlparse(url)
    if parsed.scheme == "file" and not parsed.netloc and parsed.path.startswith("/"):
        return Directory(Path(parsed.path))
    if parsed.scheme == "s3":
        return S3(url, options or S3Options(), create=create or by_store, patience=patience)
    if parsed.scheme == "memory":
        return Memory()
    shown = f"{parsed.scheme}://…" if "@" in url else url
    raise InvalidArgument(f"object store URL {shown!r}: use file:///directory or s3://bucket/prefix")
