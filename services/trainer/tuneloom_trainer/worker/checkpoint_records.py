"""What a checkpoint says about itself, and which one a job goes on from. No torch here.

A checkpoint is a directory `step-00000120` whose `checkpoint.json`, written last, carries the hash of every other file.
A host that comes back may hold checkpoints of an attempt that others have overtaken: the one to go on from has the
greatest (lease epoch, step), not the greatest step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tuneloom_common.errors import DataLoss
from tuneloom_common.manifests import FileEntry, Manifest, Template
from tuneloom_common.objects import ObjectStore, hash_file

RECORD_FILE = "checkpoint.json"
MAX_RECORD_BYTES = 1 << 20


class CheckpointRecord(BaseModel):
    """`checkpoint.json`. `lease_epoch` is 0 in records of release 0.1.0, `method` is the tuning's older name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    lease_epoch: int = 0
    step: int
    total_steps: int = 0
    loss: float = 0.0
    method: str = "lora"
    template: Template | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int]:
        return self.lease_epoch, self.step

    @property
    def finished(self) -> bool:
        """Whether no step is left to do."""
        return 0 < self.total_steps <= self.step


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A checkpoint on disk that was found whole."""

    path: Path
    record: CheckpointRecord


def directory_name(step: int) -> str:
    return f"step-{step:08d}"


def newest_whole(directory: Path, *, job: str) -> LocalCheckpoint | None:
    """The job's newest checkpoint by (lease epoch, step) whose files are all what their hashes say."""
    newest_first = sorted(_all(directory, job), key=lambda checkpoint: checkpoint.record.order, reverse=True)
    return next(filter(_whole, newest_first), None)


def leading_to(newest: LocalCheckpoint, *, after: tuple[int, int]) -> list[LocalCheckpoint]:
    """The whole checkpoints on the way to the newest, from the one `after` (lease epoch, step) up to itself.

    What an attempt saved that others have overtaken since is not on the way. The newest was found whole and is not read
    again: it may have gigabytes."""
    epoch, step = after
    way = [
        each
        for each in _all(newest.path.parent, newest.record.job)
        if step < each.record.step <= newest.record.step and epoch <= each.record.lease_epoch
    ]
    whole = (each for each in way if each.path == newest.path or _whole(each))
    return sorted(whole, key=lambda checkpoint: checkpoint.record.step)


def read_record(directory: Path) -> CheckpointRecord:
    """The record of a checkpoint that its worker has just told of."""
    return CheckpointRecord.model_validate_json((directory / RECORD_FILE).read_bytes())


async def read_registered(objects: ObjectStore, manifest: Manifest) -> CheckpointRecord:
    """The record of a registered checkpoint, without its weights."""
    return await read_stored(objects, manifest.files)


async def read_stored(objects: ObjectStore, files: Sequence[FileEntry]) -> CheckpointRecord:
    """The record of a checkpoint whose files are in the object store."""
    entry = next((file for file in files if file.path == RECORD_FILE), None)
    if entry is None or entry.size > MAX_RECORD_BYTES:
        raise DataLoss(f"a stored checkpoint has no {RECORD_FILE} that could be read; go on from an earlier one")
    data = b"".join([piece async for piece in objects.read_blob(entry.sha256)])
    return CheckpointRecord.model_validate_json(data)


def _all(directory: Path, job: str) -> list[LocalCheckpoint]:
    read = [(path, _read(path)) for path in directory.glob("step-????????")]
    return [LocalCheckpoint(path, record) for path, record in read if record is not None and record.job == job]


def _read(path: Path) -> CheckpointRecord | None:
    try:
        return read_record(path)
    except (OSError, ValueError):
        return None


def _whole(checkpoint: LocalCheckpoint) -> bool:
    try:
        return all(hash_file(checkpoint.path / name)[0] == sha256 for name, sha256 in checkpoint.record.files.items())
    except OSError:
        return False
