"""What the worker of an attempt may transfer at the object store itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tuneloom_common.errors import InvalidArgument, PermissionDenied
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.permissions import Permission
from tuneloom_trainer.jobs import Job

MOST_FILES = 100


@dataclass(frozen=True, slots=True)
class Permitted:
    """A file that is stored, or may be transferred; neither where the store gives no permissions."""

    sha256: str
    stored: bool = False
    permission: Permission | None = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """`seconds` is how long one is good; 0 gives none. `max_bytes` bounds an upload as it does by any other way."""

    objects: ObjectStore
    seconds: int
    max_bytes: int

    async def uploads(self, files: Sequence[FileEntry]) -> list[Permitted]:
        """Each is good for one content: nobody can store other bytes under a blob's name."""
        _require_few(files, "uploads")
        return [await self._upload(file, f"uploads[{number}]") for number, file in enumerate(files)]

    async def downloads(self, job: Job, goes_on_from: Collection[str], files: Sequence[FileEntry]) -> list[Permitted]:
        """Raises PermissionDenied for a blob that the attempt does not need. See Inbox for `goes_on_from`."""
        _require_few(files, "downloads")
        if not files:
            return []
        needed = set(goes_on_from)
        for digest in (job.base.digest, job.dataset.digest):
            needed |= {file.sha256 for file in (await self.objects.read_manifest(digest)).files}
        for file in files:
            if file.sha256 not in needed:
                raise PermissionDenied(
                    f"blob {file.sha256} is none of {job.name}'s base, dataset or newest checkpoint; its worker may "
                    "not read it",
                    reason="NOT_NEEDED",
                )
        return [Permitted(file.sha256, permission=await self._download(file)) for file in files]

    async def _upload(self, file: FileEntry, field: str) -> Permitted:
        if file.size > self.max_bytes:
            raise InvalidArgument(
                f"{field}.size_bytes: {file.size} is more than the {self.max_bytes} bytes that are taken here; raise "
                "TUNELOOM_TRAINER_MAX_UPLOAD_BYTES",
                field=f"{field}.size_bytes",
            )
        if await self.objects.has_blob(file.sha256, size=file.size):
            return Permitted(file.sha256, stored=True)
        if not self.seconds:
            return Permitted(file.sha256)
        return Permitted(file.sha256, permission=await self.objects.permit_upload(file, seconds=self.seconds))

    async def _download(self, file: FileEntry) -> Permission | None:
        return await self.objects.permit_download(file, seconds=self.seconds) if self.seconds else None


def _require_few(files: Sequence[FileEntry], field: str) -> None:
    if len(files) > MOST_FILES:
        raise InvalidArgument(f"{field}: at most {MOST_FILES} at a time; ask again for the rest", field=field)
