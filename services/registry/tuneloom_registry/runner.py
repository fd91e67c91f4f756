"""Runs builds: claim, fetch inputs, run the transform, store and register the result.

Everything heavy happens in a child process on local paths; here only files and rows move.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from tuneloom_common import children
from tuneloom_common.attempts import PASSING, Slots, keep_lease, patiently, while_held
from tuneloom_common.blob_cache import BlobCache
from tuneloom_common.disks import REASON as DISK_FULL
from tuneloom_common.disks import is_full
from tuneloom_common.errors import NotFound, ResourceExhausted, TuneloomError
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import EngineName, VersionName
from tuneloom_common.objects import ObjectStore
from tuneloom_common.patience import error_line
from tuneloom_common.queue import LeaseLost, Retry
from tuneloom_registry.builds import Build
from tuneloom_registry.store import BuildStore, VersionStore
from tuneloom_registry.store.builds import QUEUED
from tuneloom_registry.transforms.outcomes import Done, Full, Lost, Refused, read_outcome, result_manifest
from tuneloom_registry.transforms.preparation import prepare
from tuneloom_registry.transforms.specs import TransformResult, TransformSpec
from tuneloom_registry.transforms.workspace import Workspace

# A merge multiplies matrices of rank 16: numpy's threads would spend more time waiting for each other.
CHILD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
APPLY_PATIENCE_SECONDS = 120.0
log = structlog.get_logger()


class WorkerLost(Exception):
    """The child left no answer; another one may."""


class CancelRequested(Exception):
    """Somebody asked the build to stop."""


@dataclass(frozen=True, slots=True)
class Transforms:
    """How children run. `command` starts one, given its workspace as the last argument."""

    command: Sequence[str]
    work_dir: Path
    proof_dtype: Literal["float32", "bfloat16"]
    time_limit_seconds: float


class Runner:
    """`lease_seconds` must match the store's lease."""

    def __init__(
        self,
        *,
        versions: VersionStore,
        builds: BuildStore,
        objects: ObjectStore,
        cache: BlobCache,
        transforms: Transforms,
        slots: int,
        lease_seconds: float,
    ) -> None:
        self._versions = versions
        self._builds = builds
        self._objects = objects
        self._cache = cache
        self._transforms = transforms
        self._heartbeat_seconds = lease_seconds / 4
        self._slots = Slots(
            count=slots,
            claim=builds.claim,
            process=self.process,
            id_of=lambda build: build.id,
            notifier=builds.notifier,
            topic=QUEUED,
        )

    async def run(self) -> None:
        """Works until cancelled; what is under way then goes back into the queue."""
        await self._slots.run()

    async def process(self, build: Build) -> None:
        """Carries one claimed build as far as this attempt gets. Never raises for a build's own failure."""
        log.info(f"{build.spec.action} of {build.spec.source} started", build=build.id)
        workspace = Workspace(self._transforms.work_dir / f"{build.id}-{build.lease_epoch}")
        try:
            manifest = await while_held(self._build(build, workspace), self._keep(build, workspace))
            await patiently(
                lambda: self._builds.succeed(build, manifest, self._versions),
                what="register a result",
                seconds=APPLY_PATIENCE_SECONDS,
            )
            log.info(f"{build.spec.action} of {build.spec.source} registered", build=build.id)
        except LeaseLost:
            log.warning("the lease is lost, dropping the work", build=build.id, epoch=build.lease_epoch)
        except CancelRequested:
            await self._builds.cancelled(build)
        except asyncio.CancelledError:
            await self._shut_down(build)
            raise
        except PASSING as error:
            await self._again(build, Retry.UNAVAILABLE, error_line(error))
        except WorkerLost as error:
            await self._again(build, Retry.LOST_WORKER, str(error))
        except (TuneloomError, OSError) as error:
            if is_full(error):
                await self._again(build, Retry.DISK_FULL, f"{error}; it is repeated when there is space")
            elif isinstance(error, TuneloomError):
                await self._fail(build, error.message)
            else:
                await self._fail(build, f"{error}; check the disk and the build command, then request it again")
        except Exception as error:  # of ours: it must not end the service
            log.exception(f"{build.spec.action} of {build.spec.source} failed unexpectedly", build=build.id)
            await self._fail(build, f"the build failed unexpectedly ({type(error).__name__}: {error})")
        finally:
            await asyncio.to_thread(shutil.rmtree, workspace.directory, True)

    async def _keep(self, build: Build, workspace: Workspace) -> None:
        """Extends the lease, tells the progress, and notices a request to stop."""

        async def beat() -> None:
            await self._builds.heartbeat(build, progress=workspace.progress())

        async def watch() -> None:
            with self._builds.notifier.subscribe(build.name) as changes:
                while not await patiently(lambda: self._builds.is_cancelled(build), what="look for requests"):
                    await changes.wait(self._heartbeat_seconds)
            raise CancelRequested

        await while_held(watch(), keep_lease(beat, every_seconds=self._heartbeat_seconds))

    async def _build(self, build: Build, workspace: Workspace) -> Manifest:
        """The stored result's manifest."""
        for stale in self._transforms.work_dir.glob(f"{build.id}-*"):  # of claims that ended without notice
            await asyncio.to_thread(shutil.rmtree, stale, True)
        source = await self._versions.get_version(VersionName.parse(build.spec.source))
        base_ref = source.manifest.base
        if base_ref is None:
            raise NotFound(f"{build.spec.source} does not say which base it belongs to")
        base = await self._manifest(base_ref.digest)
        spec = TransformSpec(
            action=build.spec.action,
            base_name=str(EngineName.of(base_ref.model, base_ref.digest)),
            max_shard_size_bytes=build.spec.max_shard_size_bytes,
            proof_prompts=build.spec.proof_prompts,
            min_greedy_agreement=build.spec.min_greedy_agreement,
            proof_dtype=self._transforms.proof_dtype,
            time_limit_seconds=self._transforms.time_limit_seconds,
        )
        await prepare(
            workspace,
            spec,
            source=source.manifest,
            base=base,
            objects=self._objects,
            fetch=self._cache.materialize,
        )
        await self._builds.prepared(build)
        result = await self._run_child(workspace)
        files = await self._objects.put_directory(workspace.out)
        manifest = result_manifest(result, files, source=source, base=base)
        await self._objects.put_manifest(manifest)
        return manifest

    async def _manifest(self, digest: str) -> Manifest:
        """From the metadata, which is the truth; the object store has a copy for those without a database."""
        version = await self._versions.find_digest(digest)
        return version.manifest if version else await self._objects.read_manifest(digest)

    async def _run_child(self, workspace: Workspace) -> TransformResult:
        """Raises WorkerLost when the child leaves no answer, TuneloomError when it refuses for good."""
        child = await children.spawn(
            [*self._transforms.command, str(workspace.directory)], log=workspace.log, env=CHILD_ENVIRONMENT
        )
        try:
            status = await child.wait()
        finally:
            await child.stop(grace_seconds=0)
        match read_outcome(workspace.directory, status):
            case Done(result):
                return result
            case Refused(reason, message):
                raise TuneloomError(message, reason=reason)
            case Full(message):
                raise ResourceExhausted(message, reason=DISK_FULL)
            case Lost() as lost:
                raise WorkerLost(lost.message)

    async def _again(self, build: Build, why: Retry, error: str) -> None:
        log.warning(f"{build.spec.action} of {build.spec.source} goes back into the queue: {error}", build=build.id)
        await patiently(
            lambda: self._builds.put_back(build, why, error), what="put a build back", seconds=APPLY_PATIENCE_SECONDS
        )

    async def _shut_down(self, build: Build) -> None:
        try:
            await self._builds.put_back(build, Retry.STOPPED, "the registry is shutting down")
        except (LeaseLost, *PASSING) as error:  # it ended just now, somebody else has it, or the lease will run out
            log.info(f"{build.name} was not put back: {type(error).__name__}", build=build.id)

    async def _fail(self, build: Build, error: str) -> None:
        log.warning(f"{build.spec.action} of {build.spec.source} failed: {error}", build=build.id)
        await patiently(lambda: self._builds.fail(build, error), what="end a build", seconds=APPLY_PATIENCE_SECONDS)
