"""Runs builds: claim, fetch inputs, run the build process, store and register the result.

Everything heavy happens in a child process on local paths; this loop only moves files and rows.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

from tuneloom_common import children
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.ids import VersionName, engine_name
from tuneloom_common.manifests import Lineage, Lora, Manifest, Proof
from tuneloom_common.objects import ObjectStore
from tuneloom_registry.build_store import BuildStore
from tuneloom_registry.models import Build, Version
from tuneloom_registry.store import VersionStore

POLL_SECONDS = 1.0
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
        proof_dtype: str,
    ) -> None:
        self._versions = versions
        self._builds = builds
        self._objects = objects
        self._work_dir = work_dir
        self._command = command
        self._slots = slots
        self._heartbeat_seconds = lease_seconds / 4
        self._proof_dtype = proof_dtype

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self._slots):
                slots.create_task(self._work())

    async def _work(self) -> None:
        while True:
            build = await self._builds.claim()
            if build is None:
                await self._builds.bell.wait(POLL_SECONDS)
                continue
            await self.process(build)

    async def process(self, build: Build) -> None:
        """Carries one claimed build to its end. Never raises for a build's own failure."""
        log.info(f"{build.spec.action} of {build.spec.source} started", build=build.id, event_type="build")
        directory = self._work_dir / f"{build.id}-{build.lease_epoch}"
        try:
            manifest = await self._build(build, directory)
            if manifest is not None and await self._builds.succeed(build, manifest, self._versions):
                log.info(f"{build.spec.action} of {build.spec.source} registered", build=build.id)
        except TuneloomError as error:
            await self._builds.fail(build, error.message)
            log.warning(f"{build.spec.action} of {build.spec.source} failed: {error}", build=build.id)
        except OSError as error:
            await self._builds.fail(build, f"{error.strerror or error}; free the disk and request it again")
            log.warning(f"{build.spec.action} of {build.spec.source} failed: {error}", build=build.id)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _build(self, build: Build, directory: Path) -> Manifest | None:
        """The stored result's manifest, or None when the build was dropped."""
        await asyncio.to_thread(shutil.rmtree, directory, True)
        directory.mkdir(parents=True)
        source = await self._versions.get_version(VersionName.parse(build.spec.source))
        base_ref = source.manifest.base
        if base_ref is None:
            raise NotFound(f"{build.spec.source} does not say which base it belongs to")
        base = await self._objects.read_manifest(base_ref.digest)
        await self._objects.materialize(source.manifest.files, directory / "source")
        await self._objects.materialize(base.files, directory / "base")
        spec = {
            "action": build.spec.action,
            "base_name": engine_name(base_ref.model, base_ref.digest),
            "max_shard_size_bytes": build.spec.max_shard_size_bytes,
            "proof_prompts": build.spec.proof_prompts,
            "min_greedy_agreement": build.spec.min_greedy_agreement,
            "proof_dtype": self._proof_dtype,
        }
        (directory / "build.json").write_text(json.dumps(spec))
        if not await self._run_child(build, directory):
            return None
        result = json.loads((directory / "result.json").read_bytes())
        if not result["ok"]:
            raise TuneloomError(result["error"], reason=result["reason"])
        files = await self._objects.put_directory(directory / "out")
        manifest = Manifest(
            kind=result["kind"],
            files=files,
            base=base_ref,
            template=source.manifest.template or base.template,
            lora=Lora.model_validate(result["lora"]) if result["lora"] else None,
            lineage=_lineage(source),
            proof=Proof.model_validate(result["proof"]) if result["proof"] else None,
        )
        await self._objects.put_manifest(manifest)
        return manifest

    async def _run_child(self, build: Build, directory: Path) -> bool:
        """Runs the build process under heartbeats. False when the lease was lost or a cancel was asked for."""
        process = await children.spawn([*self._command, str(directory)], log=directory / "build.log")
        exited = asyncio.create_task(process.wait())
        try:
            while not exited.done():
                await asyncio.wait({exited}, timeout=self._heartbeat_seconds)
                if not await self._builds.heartbeat(build, progress=_progress(directory)):
                    await self._builds.confirm_cancelled(build)
                    return False
        finally:
            await children.stop(process, grace_seconds=2)
        if not (directory / "result.json").exists():
            tail = children.last_lines(directory / "build.log")
            raise TuneloomError(
                f"the build process died with status {process.returncode} (negative: killed by that signal, -9 is "
                f"often out of memory); its last words:\n{tail}",
                reason="BUILD_CRASHED",
            )
        return True


def _progress(directory: Path) -> str:
    try:
        return (directory / "progress").read_text()
    except OSError:
        return ""


def _lineage(source: Version) -> Lineage:
    known = source.manifest.lineage or Lineage()
    return known.model_copy(update={"parent": source.digest})
