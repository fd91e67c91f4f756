"""Workers as child processes of the trainer: one run directory per job, kept over attempts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from tuneloom_common import children
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.manifests import Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.events import EventTail
from tuneloom_trainer.inboxes import Inbox
from tuneloom_trainer.jobs import Job, LogTail
from tuneloom_trainer.launchers import StoredCheckpoint
from tuneloom_trainer.launchers.logs import read_tail
from tuneloom_trainer.worker.checkpoint_records import directory_name, newest_whole, read_record, read_registered
from tuneloom_trainer.worker.protocol import CHECKPOINTS_DIR, CheckpointSaved, WorkerSpec, events_file

WORKER_LOG = "worker.log"
FETCHED = ("base", "data", CHECKPOINTS_DIR)
TAIL_SECONDS = 0.1


class LocalRun:
    """A worker process whose event log is read while it grows."""

    def __init__(
        self, child: children.Child, run_dir: Path, tail: EventTail, inbox: Inbox, objects: ObjectStore
    ) -> None:
        self._child = child
        self._run_dir = run_dir
        self._tail = tail
        self._inbox = inbox
        self._objects = objects

    async def wait(self) -> int:
        exited = asyncio.ensure_future(self._child.wait())
        try:
            while not exited.done():
                await self._tell()
                await asyncio.wait({exited}, timeout=TAIL_SECONDS)
            await self._tell()  # the log is whole now
            return exited.result()
        finally:
            exited.cancel()

    async def stop(self, *, grace_seconds: float) -> None:
        await self._child.stop(grace_seconds=grace_seconds)

    async def store(self, saved: CheckpointSaved) -> StoredCheckpoint:
        path = self._run_dir / saved.path
        record = await asyncio.to_thread(read_record, path)
        return StoredCheckpoint(await self._objects.put_directory(path), record)

    def last_words(self) -> str:
        return children.last_lines(self._run_dir / WORKER_LOG)

    async def _tell(self) -> None:
        if events := list(self._tail.read()):
            await self._inbox.report(events)


class LocalLauncher:
    """`command` starts a worker, given the run directory as its last argument."""

    def __init__(
        self,
        *,
        objects: ObjectStore,
        cache: BlobCache,
        runs_dir: Path,
        command: Sequence[str],
        device: str,
        threads: int,
    ) -> None:
        self._objects = objects
        self._cache = cache
        self._runs_dir = runs_dir.absolute()
        self._command = command
        self._device = device
        self._threads = threads

    def run_dir(self, job_id: str) -> Path:
        return self._runs_dir / job_id

    async def start(self, job: Job, inbox: Inbox, *, registered: tuple[int, Manifest] | None) -> LocalRun:
        run_dir = await self.prepare(job, registered=registered)
        child = await children.spawn([*self._command, str(run_dir)], log=run_dir / WORKER_LOG)
        tail = EventTail(run_dir / events_file(job.lease_epoch), after=inbox.told)
        return LocalRun(child, run_dir, tail, inbox, self._objects)

    async def prepare(self, job: Job, *, registered: tuple[int, Manifest] | None) -> Path:
        """Fetches what the worker needs and writes its spec."""
        job.spec.require_readable()
        run_dir = self.run_dir(job.id)
        checkpoints = run_dir / CHECKPOINTS_DIR
        checkpoints.mkdir(parents=True, exist_ok=True, mode=0o700)
        base = await self._objects.read_manifest(job.base.digest)
        await self._fetch(base, run_dir / "base")
        dataset = await self._objects.read_manifest(job.dataset.digest)
        data = await self._fetch(dataset, run_dir / "data")
        registered_epoch = await self._restore(job, checkpoints, *registered) if registered else 0
        WorkerSpec(
            job=job.id,
            base_dir=run_dir / "base",
            dataset=data / dataset.files[0].path,
            training=job.spec,
            device=self._device,  # type: ignore[arg-type] # checked by pydantic
            num_threads=self._threads,
            lease_epoch=job.lease_epoch,
            registered_step=registered[0] if registered else 0,
            registered_epoch=registered_epoch,
        ).write(run_dir)
        return run_dir

    async def attach(self, job: Job, inbox: Inbox) -> None:
        """None: a worker here dies with the trainer that started it."""

    async def log(self, job_id: str, *, since: int, max_bytes: int) -> LogTail | None:
        run_dir = self.run_dir(job_id)
        if await asyncio.to_thread(_newest_epoch, run_dir) < since:
            return None
        return await read_tail(run_dir / WORKER_LOG, max_bytes)

    async def clean(self, job_id: str) -> None:
        torn = [path.name for path in self.run_dir(job_id).glob("*.part-*")]
        for name in (*FETCHED, *torn):
            await asyncio.to_thread(shutil.rmtree, self.run_dir(job_id) / name, True)

    async def kept(self) -> list[str]:
        if not self._runs_dir.is_dir():
            return []
        return [path.name for path in self._runs_dir.iterdir() if any((path / name).exists() for name in FETCHED)]

    async def _restore(self, job: Job, checkpoints: Path, step: int, manifest: Manifest) -> int:
        """Fetches the registered checkpoint unless this host has it, or a newer one; returns its lease epoch."""
        stored = await read_registered(self._objects, manifest)
        local = await asyncio.to_thread(newest_whole, checkpoints, job=job.id)
        if local is None or local.record.order < stored.order:
            directory = checkpoints / directory_name(step)
            await asyncio.to_thread(shutil.rmtree, directory, True)  # of an attempt that was overtaken
            await self._fetch(manifest, directory)
        return stored.lease_epoch

    async def _fetch(self, manifest: Manifest, directory: Path) -> Path:
        if not directory.exists():
            await self._cache.materialize(manifest.files, directory)
        return directory


def _newest_epoch(run_dir: Path) -> int:
    """Of the attempts that ran here, each of which has an event log of its own; 0 of releases that had one for all."""
    logs = [path.name.removeprefix("events-").removesuffix(".jsonl") for path in run_dir.glob("events-*.jsonl")]
    return max((int(number) for number in logs if number.isdigit()), default=0)
