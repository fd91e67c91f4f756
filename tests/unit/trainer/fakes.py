"""A clock, and a registry that remembers what was published to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuneloom.registry.v1 import builds_pb2, registry_pb2, registry_pb2_grpc, versions_pb2
from tuneloom_common.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, Unavailable
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest
from tuneloom_common.objects import ObjectStore


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """Resolves names, registers versions under fences and ends builds at once. `down` calls fail first."""

    def __init__(self, objects: ObjectStore, staging: Path) -> None:
        self.objects = objects
        self.staging = staging
        self.references: dict[str, versions_pb2.Version] = {}
        self.models: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.builds: list[registry_pb2.CreateBuildRequest] = []
        self.build_error = ""
        self.build_held = False
        self.merge_error = ""
        self.asked: list[registry_pb2.CreateBuildRequest] = []
        self.cancelled: list[tuple[str, int]] = []
        self.aliases: dict[str, int] = {}
        self.down = 0

    async def publish(self, reference: str, kind: str, files: dict[str, bytes]) -> Manifest:
        """Makes a version resolvable; a dataset's name is "datasets/…", all else is a model's."""
        directory = self.staging / reference.replace("/", "-")
        directory.mkdir(parents=True)
        for path, content in files.items():
            (directory / path).write_bytes(content)
        manifest = Manifest(kind=Kind(kind), files=await self.objects.put_directory(directory))
        await self.objects.put_manifest(manifest)
        parent = reference if "/" in reference else f"models/{reference}"
        self._add(reference, f"{parent}/versions/1", manifest)
        return manifest

    def _add(self, reference: str, name: str, manifest: Manifest) -> versions_pb2.Version:
        version = versions_pb2.Version(name=name, digest=manifest.digest, manifest_json=manifest.canonical().decode())
        self.references[reference] = self.references[name] = version
        return version

    def versions_of(self, model: str) -> list[str]:
        return sorted(name for name in self.references if name.startswith(f"models/{model}/versions/"))

    async def ResolveVersion(self, request: Any, context: Any) -> versions_pb2.Version:
        self._maybe_down()
        if request.reference not in self.references:
            raise NotFound(f"nothing is called {request.reference!r}")
        return self.references[request.reference]

    async def CreateModel(self, request: Any, context: Any) -> versions_pb2.Model:
        self._maybe_down()
        if request.model_id in self.models:
            raise AlreadyExists(f"models/{request.model_id} exists")
        self.models.add(request.model_id)
        return versions_pb2.Model(name=f"models/{request.model_id}")

    async def CreateVersion(self, request: Any, context: Any) -> versions_pb2.Version:
        self._maybe_down()
        self._check_fence(request.fence)
        manifest = Manifest.parse(request.manifest_json)
        number = len(self.versions_of(request.parent.removeprefix("models/"))) + 1
        return self._add(manifest.digest, f"{request.parent}/versions/{number}", manifest)

    async def GetModel(self, request: Any, context: Any) -> versions_pb2.Model:
        return versions_pb2.Model(name=request.name, aliases=self.aliases)

    async def SetAlias(self, request: Any, context: Any) -> versions_pb2.Alias:
        alias = request.name.rpartition("/")[2]
        if self.aliases.get(alias, 0) != request.expected_version:
            raise Aborted("it moved")
        self.aliases[alias] = request.version
        return versions_pb2.Alias(name=request.name, version=request.version)

    async def CreateBuild(self, request: Any, context: Any) -> builds_pb2.Build:
        self._maybe_down()
        self._check_fence(request.build.fence)
        self.asked.append(request)
        names = [seen.request_id for seen in self.builds]
        if request.request_id not in names:
            self.builds.append(request)
            names.append(request.request_id)
        return self._build(names.index(request.request_id))

    async def GetBuild(self, request: Any, context: Any) -> builds_pb2.Build:
        return self._build(int(request.name.removeprefix("builds/b")))

    async def CancelFencedBuilds(self, request: Any, context: Any) -> registry_pb2.CancelFencedBuildsResponse:
        self._maybe_down()
        self._check_fence(request.fence)
        self.cancelled.append((request.fence.scope, request.fence.epoch))
        return registry_pb2.CancelFencedBuildsResponse()

    def _build(self, index: int) -> builds_pb2.Build:
        name, build = f"builds/b{index}", self.builds[index].build
        if self.build_error:
            return builds_pb2.Build(name=name, state=builds_pb2.BUILD_STATE_FAILED, error=self.build_error)
        if self.merge_error and build.WhichOneof("spec") == "merge":
            return builds_pb2.Build(name=name, state=builds_pb2.BUILD_STATE_FAILED, error=self.merge_error)
        if self.build_held:
            return builds_pb2.Build(name=name, state=builds_pb2.BUILD_STATE_RUNNING)
        number = {"convert": 1, "merge": 2}[build.WhichOneof("spec")]
        return builds_pb2.Build(
            name=name,
            state=builds_pb2.BUILD_STATE_SUCCEEDED,
            result_version=f"{build.target_model}/versions/{number}",
        )

    def _maybe_down(self) -> None:
        if self.down:
            self.down -= 1
            raise Unavailable("the registry restarts")

    def _check_fence(self, fence: Any) -> None:
        if fence.epoch < self.epochs.get(fence.scope, 0):
            raise FailedPrecondition("a higher epoch was seen", reason="LEASE_LOST")
        self.epochs[fence.scope] = fence.epoch


@asynccontextmanager
async def serve_registry(registry: FakeRegistry) -> AsyncIterator[str]:
    """Runs the fake on loopback; yields its address."""
    server = await build_server(
        domain="registry.tuneloom",
        services=[
            (
                "tuneloom.registry.v1.RegistryService",
                lambda server: registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server),
            )
        ],
    )
    port = bind(server, "127.0.0.1:0", setting="port")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)
