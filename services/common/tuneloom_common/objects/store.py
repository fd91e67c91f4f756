"""Blobs and manifests, whatever they are stored in."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Self

import obstore
import structlog
from obstore.exceptions import BaseError

from tuneloom_common.errors import DataLoss, NotFound, TuneloomError, Unavailable
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects.creation import Lock, Store, under
from tuneloom_common.objects.faults import WRONG
from tuneloom_common.objects.files import hash_file, materialize
from tuneloom_common.objects.identity import Remembered, recognise
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.places import open_place
from tuneloom_common.objects.probe import require_atomic_create
from tuneloom_common.objects.requests import Patience
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options

log = structlog.get_logger()


class ObjectStore:
    """The one way to stored artifacts. `url` is file:///directory, s3://bucket/prefix or memory://."""

    def __init__(
        self, url: str, options: S3Options | None = None, *, lock: Lock | None = None, patience: Patience | None = None
    ) -> None:
        """With a lock, put-if-absent takes turns by it; without, the store itself decides who was first."""
        self.url = url
        self._place = open_place(url, options, create=under(lock) if lock else None, patience=patience)
        self._locked = lock is not None

    async def create(self) -> Self:
        """Makes the store where there is none."""
        try:
            await self._place.mark()
        except (BaseError, OSError) as error:
            raise self.translate(error) from error
        return self

    async def check(self) -> None:
        """Raises Unavailable when the store is set up wrong; one that does not answer now is told of in the log."""
        try:
            await self._place.check()
        except Unavailable as error:
            if error.reason in WRONG:
                raise
            log.warning(f"{error}; going on without it")
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    async def recognise(self, remembered: Remembered, *, setting: str) -> None:
        """Holds the store against what a database knows of it, and tries whether it can be trusted."""
        try:
            if isinstance(self._place, S3):
                await self._place.check()
                if not self._locked:
                    put_if_absent = self._place.options.setting("PUT_IF_ABSENT")
                    await require_atomic_create(self._place.store, url=self.url, setting=put_if_absent)
                await self._place.sweep()
            await recognise(self._place, remembered, url=self.url, setting=setting)
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    @property
    def _store(self) -> Store:
        return self._place.store

    async def put_file(self, path: Path, *, name: str) -> FileEntry:
        """Stores a local file's content under its hash, unless it is there already."""
        sha256, size = await asyncio.to_thread(hash_file, path)
        await self.put_known_file(path, sha256=sha256, size=size)
        return FileEntry(path=name, size=size, sha256=sha256)

    async def put_known_file(self, path: Path, *, sha256: str, size: int) -> None:
        """Stores a local file whose hash the caller has just computed. What is stored already is checked: a damaged
        blob is replaced."""
        if await self.holds(sha256, size=size):
            return
        await self._place.require()
        try:
            await self._place.upload(path, _blob(sha256), sha256=sha256, size=size)
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    async def permit_upload(self, file: FileEntry, *, seconds: int) -> Permission | None:
        """For somebody without a key: to store this content and no other. None where the store cannot say so."""
        try:
            return await self._place.permit_upload(
                _blob(file.sha256), sha256=file.sha256, size=file.size, seconds=seconds
            )
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    async def permit_download(self, file: FileEntry, *, seconds: int) -> Permission | None:
        """For somebody without a key: to read this blob."""
        return self._place.permit_download(_blob(file.sha256), seconds=seconds)

    async def put_directory(self, directory: Path) -> tuple[FileEntry, ...]:
        """Stores every file below a directory."""
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        return tuple([await self.put_file(path, name=path.relative_to(directory).as_posix()) for path in paths])

    async def has_blob(self, sha256: str, *, size: int) -> bool:
        """Whether a blob of this hash and size is stored."""
        try:
            return (await obstore.head_async(self._store, _blob(sha256)))["size"] == size
        except FileNotFoundError:
            await self._place.require()
            return False
        except BaseError as error:
            raise self.translate(error) from error

    async def holds(self, sha256: str, *, size: int) -> bool:
        """Whether a blob is stored and sound: its bytes are read and hashed. A damaged one is put aside."""
        if not await self.has_blob(sha256, size=size):
            return False
        try:
            async for _ in self.read_blob(sha256):
                pass
        except DataLoss:
            return False
        return True

    async def read_range(self, sha256: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a blob, not verified: a part has no hash."""
        try:
            return bytes(await obstore.get_range_async(self._store, _blob(sha256), start=start, end=end))
        except FileNotFoundError:
            raise await self._absent(f"blob {sha256}") from None
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    async def read_blob(self, sha256: str) -> AsyncIterator[bytes]:
        """Streams a blob; raises DataLoss after the last byte when it is not what its name says."""
        hasher = hashlib.sha256()
        try:
            async for data in self._place.stream(_blob(sha256)):
                await asyncio.to_thread(hasher.update, data)
                yield data
        except FileNotFoundError:
            raise await self._absent(f"blob {sha256}") from None
        except (BaseError, OSError) as error:
            raise self.translate(error) from error
        if hasher.hexdigest() != sha256:
            raise await self._damaged(sha256)

    async def put_manifest(self, manifest: Manifest) -> str:
        """Commits a version: checks that its blobs are there, then creates the manifest. Idempotent; what is stored
        under the manifest's digest and is something else is replaced."""
        for file in manifest.files:
            if not await self.has_blob(file.sha256, size=file.size):
                raise NotFound(f"{file.path}: blob {file.sha256} is not stored; upload it before the manifest")
        name, data = _manifest(manifest.digest), manifest.canonical()
        await self._place.require()
        try:
            if not await self._place.create(name, data) and not await self._manifest_is_sound(manifest.digest):
                await self._place.overwrite(name, data)
        except (BaseError, OSError) as error:
            raise self.translate(error) from error
        return manifest.digest

    async def _manifest_is_sound(self, digest: str) -> bool:
        try:
            await self.read_manifest(digest)
        except (DataLoss, NotFound):
            return False
        return True

    async def read_manifest(self, digest: str) -> Manifest:
        """Reads a manifest and checks it against its digest."""
        try:
            answer = await obstore.get_async(self._store, _manifest(digest))
            data = bytes(await answer.bytes_async())
        except FileNotFoundError:
            raise await self._absent(f"manifest {digest}") from None
        except (BaseError, OSError) as error:
            raise self.translate(error) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataLoss(f"manifest {digest} is damaged in {self.url}; restore it from a backup")
        return Manifest.parse(data)

    async def materialize(self, files: Iterable[FileEntry], directory: Path) -> Path:
        """Makes files available in a directory that must not exist yet, verified, all or nothing.

        On a local store the files are hard links to the blobs: nobody may write to them.
        """
        try:
            return await materialize(files, directory, self.fetch)
        except (BaseError, OSError) as error:
            raise self.translate(error) from error

    async def fetch(self, file: FileEntry, target: Path) -> None:
        """Makes one blob available as a file that must not exist yet, verified."""
        name = _blob(file.sha256)
        try:
            sound = await self._place.download(name, target, sha256=file.sha256, size=file.size)
        except FileNotFoundError:
            raise await self._absent(f"blob {file.sha256}") from None
        if sound is False:
            raise await self._damaged(file.sha256)
        if sound is None:
            with target.open("xb") as output:
                async for chunk in self.read_blob(file.sha256):
                    await asyncio.to_thread(output.write, chunk)

    async def _absent(self, what: str) -> TuneloomError:
        """Raises Unavailable when nothing can be said about what is stored."""
        await self._place.require()
        return NotFound(f"{what} is not stored; upload it first")

    async def _damaged(self, sha256: str) -> DataLoss:
        """Puts a blob aside whose bytes are not what its name says, so that uploading it again mends it."""
        if await self._was_mended(sha256):
            return DataLoss(f"blob {sha256} was damaged in {self.url} and is whole again; read it once more")
        aside = f"damaged/{sha256}-{secrets.token_hex(4)}"
        try:
            await obstore.rename_async(self._store, _blob(sha256), aside)
        except (FileNotFoundError, BaseError, OSError):  # somebody was faster, or the next reader will
            aside = _blob(sha256)
        return DataLoss(f"blob {sha256} is damaged in {self.url} (kept there as {aside}); upload the file again")

    async def _was_mended(self, sha256: str) -> bool:
        """Whether what is stored now is right: a slow reader may have read what somebody else has replaced."""
        hasher = hashlib.sha256()
        try:
            async for data in self._place.stream(_blob(sha256)):
                await asyncio.to_thread(hasher.update, data)
        except (FileNotFoundError, BaseError, OSError):
            return False
        return hasher.hexdigest() == sha256

    def translate(self, error: Exception) -> Exception:
        """A storage library's or the system's error as one of ours."""
        return self._place.translate(error)


def _blob(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def _manifest(digest: str) -> str:
    return f"manifests/{digest}.json"
