"""Runs builds: claim, fetch inputs, run the build process, store and register the result.

Everything heavy happens in a child process on local paths; this loop only moves files and rows.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tuneloom_common import children
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import EngineName, VersionName
from tuneloom_common.objects import ObjectStore
from tuneloom_registry.build_store import BuildStore
from tuneloom_registry.models import Build
from tuneloom_registry.store import VersionStore
from tuneloom_registry.transforms.outcomes import Done, Lost, Refused, read_outcome, result_manifest
from tuneloom_registry.transforms.preparation import prepare
from tuneloom_registry.transforms.specs import TransformResult, TransformSpec
from tuneloom_registry.transforms.workspace import Workspace

POLL_SECONDS = 1.0
# A merge multiplies matrices of rank 16: numpy's threads would spend more time waiting for each other.
CHILD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
log = structlog.get_logger()


class Builder:
    """A loop per build slot. `lease_seconds` must match the store's lease."""

    def __init__(
        self,
        *,
        versions: VersionStore,
        builds: BuildStore,
        objects: ObjectStore,
        work_dir: Path,
        command: Sequence[str],
        slots: int,
        lease_seconds: float,
        proof_dtype: Literal["float32", "bfloat16"],
        time_limit_seconds: float,
    ) -> None:
        self._versions = versions
        self._builds = builds
        self._objects = objects
        self._work_dir = work_dir
        self._command = command
        self._slots = slots
        self._heartbeat_seconds = lease_seconds / 4
        self._proof_dtype = proof_dtype
        self._time_limit_seconds = time_limit_seconds

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._slots):
                slots.create_task(self._work())

    async def _work(self) -> None:
        while True:
            rings = self._builds.bell.rings
            try:
                if build := await self._builds.claim():
                    await self.process(build)
                    continue
            except SQLAlchemyError:  # a full or busy disk: the lease runs out and the build is claimed again
                log.exception("the database failed; trying again")
            await self._builds.bell.wait(POLL_SECONDS, since=rings)

    async def process(self, build: Build) -> None:
        """Carries one claimed build to its end. Never raises for a build's own failure."""
        log.info(f"{build.spec.action} of {build.spec.source} started", build=build.id, event_type="build")
        directory = self._work_dir / f"{build.id}-{build.lease_epoch}"
        try:
            manifest = await self._under_lease(build, directory)
            if manifest is not None and await self._builds.succeed(build, manifest, self._versions):
                log.info(f"{build.spec.action} of {build.spec.source} registered", build=build.id)
        except TuneloomError as error:
            await self._builds.fail(build, error.message)
            log.warning(f"{build.spec.action} of {build.spec.source} failed: {error}", build=build.id)
        except OSError as error:
            await self._builds.fail(build, f"{error}; check the disk and the build command, then request it again")
            log.warning(f"{build.spec.action} of {build.spec.source} failed: {error}", build=build.id)
        except Exception as error:  # such as a result that is none: it must not end the service
            await self._builds.fail(build, f"the build has no usable result ({type(error).__name__}: {error})")
            log.exception(f"{build.spec.action} of {build.spec.source} failed unexpectedly", build=build.id)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _under_lease(self, build: Build, directory: Path) -> Manifest | None:
        """Builds under heartbeats. None when the lease was lost or a cancel was asked for."""
        work: asyncio.Task[Manifest] | None = None
        try:
            while await self._builds.heartbeat(build, progress=Workspace(directory).progress()):
                work = work or asyncio.create_task(self._build(build, directory))
                await asyncio.wait({work}, timeout=self._heartbeat_seconds)
                if work.done():
                    return work.result()
            await self._builds.confirm_cancelled(build)
            return None
        finally:
            if work:
                work.cancel()
                await asyncio.wait({work})

    async def _build(self, build: Build, directory: Path) -> Manifest:
        """The stored result's manifest."""
        for stale in self._work_dir.glob(f"{build.id}-*"):  # of claims that ended without notice
            await asyncio.to_thread(shutil.rmtree, stale, True)
        directory.mkdir(parents=True)
        workspace = Workspace(directory)
        source = await self._versions.get_version(VersionName.parse(build.spec.source))
        base_ref = source.manifest.base
        if base_ref is None:
            raise NotFound(f"{build.spec.source} does not say which base it belongs to")
        base = await self._objects.read_manifest(base_ref.digest)
        spec = TransformSpec(
            action=build.spec.action,
            base_name=str(EngineName.of(base_ref.model, base_ref.digest)),
            max_shard_size_bytes=build.spec.max_shard_size_bytes,
            proof_prompts=build.spec.proof_prompts,
            min_greedy_agreement=build.spec.min_greedy_agreement,
            proof_dtype=self._proof_dtype,
            time_limit_seconds=self._time_limit_seconds,
        )
        await prepare(workspace, spec, source=source.manifest, base=base, objects=self._objects)
        result = await self._run_child(workspace)
        files = await self._objects.put_directory(workspace.out)
        manifest = result_manifest(result, files, source=source, base=base)
        await self._objects.put_manifest(manifest)
        return manifest

    async def _run_child(self, workspace: Workspace) -> TransformResult:
        """Runs the build process; raises when it leaves no result."""
        process = await children.spawn(
            [*self._command, str(workspace.directory)], log=workspace.log, env=CHILD_ENVIRONMENT
        )
        try:
            await process.wait()
        finally:
            status = await process.stop(grace_seconds=2)
        match read_outcome(workspace.directory, status):
            case Done(result):
                return result
            case Refused(reason, message):
                raise TuneloomError(message, reason=reason)
            case Lost() as lost:
                raise TuneloomError(lost.message, reason="BUILD_CRASHED")
