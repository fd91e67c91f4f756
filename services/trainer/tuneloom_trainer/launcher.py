"""Prepares a job's run directory and starts its worker."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from tuneloom_common import children
from tuneloom_common.manifests import Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.jobs import Job
from tuneloom_trainer.worker.checkpoint_records import directory_name, newest_whole, read_registered
from tuneloom_trainer.worker.protocol import CHECKPOINTS_DIR, WorkerSpec, events_file

WORKER_LOG = "worker.log"


class Launcher:
    """One run directory per job, kept over restarts: base, data, event log and checkpoints."""

    def __init__(
        self, *, objects: ObjectStore, runs_dir: Path, command: Sequence[str], device: str, threads: int
    ) -> None:
        self._objects = objects
        self._runs_dir = runs_dir
        self._command = command
        self._device = device
        self._threads = threads

    def run_dir(self, job: Job) -> Path:
        return self._runs_dir / job.id

    async def prepare(self, job: Job, *, restore: tuple[int, Manifest] | None) -> Path:
        """Fetches what the worker needs. `restore` is the newest registered (step, checkpoint), if any."""
        job.spec.require_readable()
        run_dir = self.run_dir(job)
        checkpoints = run_dir / CHECKPOINTS_DIR
        checkpoints.mkdir(parents=True, exist_ok=True)
        base = await self._objects.read_manifest(job.base.digest)
        await self._fetch(base, run_dir / "base")
        dataset = await self._objects.read_manifest(job.dataset.digest)
        data = await self._fetch(dataset, run_dir / "data")
        if restore:
            await self._restore(job, checkpoints, *restore)
        WorkerSpec(
            job=job.id,
            base_dir=(run_dir / "base").absolute(),
            dataset=data.absolute() / dataset.files[0].path,
            training=job.spec,
            device=self._device,  # type: ignore[arg-type] # checked by pydantic
            num_threads=self._threads,
            lease_epoch=job.lease_epoch,
            registered_step=restore[0] if restore else 0,
        ).write(run_dir)
        return run_dir

    async def _restore(self, job: Job, checkpoints: Path, step: int, manifest: Manifest) -> None:
        """Fetches the registered checkpoint unless this host has it, or a newer one."""
        registered = await read_registered(self._objects, manifest)
        local = await asyncio.to_thread(newest_whole, checkpoints, job=job.id)
        if local is None or local.record.order < registered.order:
            directory = checkpoints / directory_name(step)
            await asyncio.to_thread(shutil.rmtree, directory, True)  # of an attempt that was overtaken
            await self._fetch(manifest, directory)

    async def start(self, job: Job) -> children.Child:
        """Starts the worker process on a prepared run directory."""
        run_dir = self.run_dir(job).absolute()
        return await children.spawn([*self._command, str(run_dir)], log=run_dir / WORKER_LOG)

    async def clean(self, job: Job) -> None:
        """Drops what can be fetched again; the event log and the worker's own log stay."""
        for name in ("base", "data", CHECKPOINTS_DIR):
            await asyncio.to_thread(shutil.rmtree, self.run_dir(job) / name, True)

    def events_path(self, job: Job) -> Path:
        return self.run_dir(job) / events_file(job.lease_epoch)

    def log_tail(self, job: Job) -> str:
        return children.last_lines(self.run_dir(job) / WORKER_LOG)

    async def _fetch(self, manifest: Manifest, directory: Path) -> Path:
        if not directory.exists():
            await self._objects.materialize(manifest.files, directory)
        return directory
