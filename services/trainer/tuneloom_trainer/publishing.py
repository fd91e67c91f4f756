"""Turns what a worker leaves into registered versions: checkpoints while it trains, results at the end.

Everything is asked for under the job's lease, and with request ids that do not depend on the attempt: an attempt that
takes over finds what an earlier one has finished, or has begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version as distribution_version
from typing import TypeVar

import structlog

from tuneloom_client.builds import Build, BuildSpec, BuildState, ConvertSpec, Fence, MergeSpec
from tuneloom_client.registry import RegistryClient
from tuneloom_common.attempts import patiently
from tuneloom_common.errors import Aborted, FailedPrecondition, TuneloomError
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Lineage, Manifest, canonical_json
from tuneloom_common.names import DEFAULT_ALIAS, VersionName
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.jobs import Job
from tuneloom_trainer.launchers import StoredCheckpoint

BUILD_POLL_SECONDS = 0.2
CANCEL_PATIENCE_SECONDS = 3.0
PATIENCE_SECONDS = 600.0
"""After this the attempt ends and the job waits in the queue, where it holds no slot."""
T = TypeVar("T")
log = structlog.get_logger()


class Publisher:
    """Blobs first, manifest last. Waits out a registry that is away, up to PATIENCE_SECONDS a call."""

    def __init__(
        self, *, objects: ObjectStore, registry: RegistryClient, poll_seconds: float = BUILD_POLL_SECONDS
    ) -> None:
        self._objects = objects
        self._registry = registry
        self._poll_seconds = poll_seconds

    async def manifest(self, version: str) -> Manifest:
        """The manifest of a version that is known to exist."""
        return (await self._reach(lambda: self._registry.resolve(version))).manifest

    async def checkpoint(self, job: Job, stored: StoredCheckpoint, *, step: int) -> str:
        """Registers a checkpoint as a version of the job's own model; returns its name."""
        manifest = Manifest(
            kind=Kind.CHECKPOINT,
            files=stored.files,
            base=BaseRef(model=VersionName.parse(job.base.name).id, digest=job.base.digest),
            template=stored.record.template,
            quantization=job.spec.quantization,
            lineage=Lineage(
                job=job.id,
                step=step,
                datasets=(job.dataset.digest,),
                recipe=hashlib.sha256(canonical_json(job.spec.model_dump(mode="json"))).hexdigest(),
                seed=job.spec.seed,
                code_version=distribution_version("tuneloom-trainer"),
            ),
        )
        model = collection_of(job)
        await self._reach(lambda: self._registry.ensure_model(model, training_job=job.name))
        version = await self._reach(lambda: self._registry.register(model, manifest, fence=_fence(job)))
        return str(version.name)

    async def ask_live(self, job: Job, checkpoint: str, *, step: int) -> Build:
        """Asks for a checkpoint to answer as "{job}@{step}"; asking again goes on with the same build."""
        aliases = [str(step), DEFAULT_ALIAS]
        return await self._ask(job, ConvertSpec(checkpoint), collection_of(job), aliases, f"{checkpoint}-live")

    async def live(self, job: Job, build: Build, *, step: int) -> None:
        """Returns when the checkpoint answers; what keeps it from that is only logged."""
        try:
            await self._ended(job, build)
        except TuneloomError as error:
            log.warning(f"{job.id}@{step} cannot be chatted with: {error}", job=job.id, step=step)

    async def result(self, job: Job, checkpoint: str) -> str:
        """Converts the last checkpoint into the output model; returns the version's name."""
        await self._reach(lambda: self._registry.ensure_model(job.output_model))
        return await self._build(job, ConvertSpec(checkpoint), job.output_model, [], f"{checkpoint}-result")

    async def merged(self, job: Job, adapter: str) -> str:
        """Merges and proves the result; returns the merged version's name."""
        spec = MergeSpec(adapter, proof_prompts=tuple(job.spec.sample_prompts))
        return await self._build(job, spec, job.output_model, ["merged"], f"{adapter}-merged")

    async def promote(self, job: Job, version: str) -> None:
        """Moves the output model's default to the result, unless it points to a newer version by now."""
        number = VersionName.parse(version).number
        while True:
            model = await self._reach(lambda: self._registry.model(job.output_model))
            current = model.aliases.get(DEFAULT_ALIAS, 0)
            if current >= number:
                return
            try:
                await self._move_default(job, number, expected=current)
                return
            except Aborted:  # somebody else moved it: look again
                continue

    async def cancel(self, job: Job) -> None:
        """Stops what any attempt of a cancelled job has asked for, and what one may still publish; raises Unavailable
        when the registry does not hear it soon."""
        after_all = Fence(job.name, job.lease_epoch + 1)
        await patiently(
            lambda: self._registry.cancel_fenced_builds(after_all),
            what="cancel a job's builds",
            seconds=CANCEL_PATIENCE_SECONDS,
        )

    async def _move_default(self, job: Job, number: int, *, expected: int) -> None:
        await self._reach(lambda: self._registry.set_alias(job.output_model, DEFAULT_ALIAS, number, expected=expected))

    async def _build(self, job: Job, spec: BuildSpec, target_model: str, aliases: Sequence[str], request: str) -> str:
        """Runs a build to its end and returns the result's version name; raises with the build's own error."""
        return await self._ended(job, await self._ask(job, spec, target_model, aliases, request))

    async def _ask(self, job: Job, spec: BuildSpec, target_model: str, aliases: Sequence[str], request: str) -> Build:
        return await self._reach(
            lambda: self._registry.create_build(
                spec,
                target_model=target_model,
                aliases=aliases,
                fence=_fence(job),
                request_id=f"{job.id}-{request}",
            )
        )

    async def _ended(self, job: Job, build: Build) -> str:
        ended = await self._registry.ended(build, poll_seconds=self._poll_seconds)
        if ended.state is not BuildState.SUCCEEDED:
            raise FailedPrecondition(f"{ended.name} {ended.state}: {ended.error}", reason="BUILD_FAILED")
        return str(ended.result_version)

    async def _reach(self, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(call, what="reach the registry", seconds=PATIENCE_SECONDS)


def collection_of(job: Job) -> str:
    """The model that collects a job's checkpoints, so that "{job}@{step}" is an ordinary name."""
    return f"models/{job.id}"


def _fence(job: Job) -> Fence:
    return Fence(job.name, job.lease_epoch)
