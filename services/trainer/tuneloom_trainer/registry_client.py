"""What the trainer asks of the registry, in the trainer's words. Waits out a registry that is restarting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from tuneloom.common.v1 import fence_pb2
from tuneloom.registry.v1 import builds_pb2, registry_pb2, registry_pb2_grpc, versions_pb2
from tuneloom_common.errors import AlreadyExists, FailedPrecondition, Unavailable
from tuneloom_common.grpc import translated
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import VersionName, parse_name
from tuneloom_trainer.jobs import Artifact, Job

CALL_TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600
T = TypeVar("T")
log = structlog.get_logger()


class RegistryClient:
    """`resolve*` fail at once when the registry is down; the runner's calls wait for it to come back."""

    def __init__(self, stub: registry_pb2_grpc.RegistryServiceAsyncStub, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._stub = stub
        self._poll_seconds = poll_seconds

    async def resolve(self, reference: str) -> tuple[Artifact, Manifest]:
        """The version a reference means now, with its manifest."""
        with translated("registry"):
            version: versions_pb2.Version = await self._stub.ResolveVersion(
                registry_pb2.ResolveVersionRequest(reference=reference), timeout=CALL_TIMEOUT_SECONDS
            )
        return Artifact(version.name, version.digest), Manifest.parse(version.manifest_json)

    async def manifest_of(self, version: str) -> Manifest:
        """The manifest of a version that is known to exist."""

        async def resolve() -> Manifest:
            return (await self.resolve(version))[1]

        return await _patiently(resolve)

    async def ensure_model(self, model: str, *, training_job: str = "") -> None:
        """Creates the model ("models/{id}") unless it is there."""

        async def create() -> None:
            with translated("registry"):
                await self._stub.CreateModel(
                    registry_pb2.CreateModelRequest(model_id=parse_name(model, "models"), training_job=training_job),
                    timeout=CALL_TIMEOUT_SECONDS,
                )

        try:
            await _patiently(create)
        except AlreadyExists:
            pass

    async def register(self, parent: str, manifest: Manifest, *, job: Job) -> str:
        """Registers a version under the job's lease and returns its name."""

        async def create() -> str:
            with translated("registry"):
                version = await self._stub.CreateVersion(
                    registry_pb2.CreateVersionRequest(
                        parent=parent, manifest_json=manifest.canonical().decode(), fence=_fence(job)
                    ),
                    timeout=CALL_TIMEOUT_SECONDS,
                )
            return version.name

        return await _patiently(create)

    async def build(
        self, spec: builds_pb2.Build, *, job: Job, target_model: str, aliases: Sequence[str], request_id: str
    ) -> str:
        """Runs a build to its end and returns the result's version name; raises with the build's own error."""
        request = registry_pb2.CreateBuildRequest(build=spec, request_id=request_id)
        request.build.target_model = target_model
        request.build.target_aliases.extend(aliases)
        request.build.fence.CopyFrom(_fence(job))

        async def create() -> builds_pb2.Build:
            with translated("registry"):
                return await self._stub.CreateBuild(request, timeout=CALL_TIMEOUT_SECONDS)

        build = await _patiently(create)

        async def get() -> builds_pb2.Build:
            with translated("registry"):
                return await self._stub.GetBuild(
                    registry_pb2.GetBuildRequest(name=build.name), timeout=CALL_TIMEOUT_SECONDS
                )

        while build.state in (builds_pb2.BUILD_STATE_QUEUED, builds_pb2.BUILD_STATE_RUNNING):
            await asyncio.sleep(self._poll_seconds)
            build = await _patiently(get)
        if build.state != builds_pb2.BUILD_STATE_SUCCEEDED:
            raise FailedPrecondition(f"{build.name} failed: {build.error}", reason="BUILD_FAILED")
        return build.result_version


def parent_of(version: str) -> str:
    return VersionName.parse(version).parent


def _fence(job: Job) -> fence_pb2.Fence:
    return fence_pb2.Fence(scope=job.name, epoch=job.lease_epoch)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call while the registry is unavailable, up to PATIENCE_SECONDS."""
    waited, pause = 0.0, 0.5
    while True:
        try:
            return await call()
        except Unavailable as error:
            if waited >= PATIENCE_SECONDS:
                raise
            log.warning(f"waiting for the registry: {error}")
        await asyncio.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, 5.0)
