"""The registry's client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom_client.builds import Build, BuildSpec, Fence, build_to_wire
from tuneloom_client.connection import Connection
from tuneloom_client.paging import PAGE_SIZE, pages
from tuneloom_client.retries import retry_config
from tuneloom_client.uploads import Upload
from tuneloom_client.versions import Alias, Dataset, Model, ModelEvent, Version
from tuneloom_common.errors import AlreadyExists, Unavailable
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.names import AliasName, parse_name
from tuneloom_common.patience import patient

if TYPE_CHECKING:
    import grpc

    from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

REGISTER_TIMEOUT_SECONDS = 300.0
UPLOAD_PATIENCE_SECONDS = 10.0
BUILD_POLL_SECONDS = 0.5
# What may be sent twice: reading, and what names its outcome by content or by request_id.
REPEATABLE = (
    "ResolveVersion", "GetVersion", "ListVersions", "GetModel", "ListModels", "GetDataset", "ListDatasets", "GetBuild",
    "ListBuilds", "CreateVersion", "CreateBuild", "CreateModel", "CreateDataset",
)  # fmt: skip

Progress = Callable[[int], None]


class RegistryClient(Connection):
    """Every call has a deadline and raises our own errors."""

    peer_name = "registry"
    retries = retry_config("tuneloom.registry.v1.RegistryService", REPEATABLE)

    @cached_property
    def _stub(self) -> RegistryServiceAsyncStub:
        return RegistryServiceStub(self._channel)

    # Versions

    async def resolve(self, reference: str) -> Version:
        """The version a public name means now; raises NotFound or InvalidArgument for the name at fault."""
        with self._peer.called():
            return Version.of(
                await self._stub.ResolveVersion(pb.ResolveVersionRequest(reference=reference), timeout=self._timeout)
            )

    async def versions(self, parent: str) -> list[Version]:
        """All versions of "models/{model}" or "datasets/{dataset}", newest first."""

        def fetch(token: str) -> Awaitable[pb.ListVersionsResponse]:
            request = pb.ListVersionsRequest(parent=parent, page_size=PAGE_SIZE, page_token=token)
            return self._stub.ListVersions(request, timeout=self._timeout)

        with self._peer.called():
            return [Version.of(version) async for page in pages(fetch) for version in page.versions]

    async def register(
        self, parent: str, manifest: Manifest, *, aliases: Sequence[str] = (), fence: Fence | None = None
    ) -> Version:
        """Registers a version whose files are stored. The same manifest in the same parent is the same version."""
        request = pb.CreateVersionRequest(
            parent=parent,
            manifest_json=manifest.canonical().decode(),
            aliases=aliases,
            fence=fence.to_wire() if fence else None,
        )
        with self._peer.called():
            return Version.of(await self._stub.CreateVersion(request, timeout=REGISTER_TIMEOUT_SECONDS))

    async def upload(
        self, path: Path, *, name: str = "", on_bytes: Callable[[int], None] = lambda _: None
    ) -> FileEntry:
        """Stores a file's content, by default under its own name. `on_bytes` hears how many bytes were sent."""
        upload = await Upload.of(path, name=name)

        async def send() -> FileEntry:
            with self._peer.called():
                await self._stub.UploadBlob(upload.parts(on_bytes), timeout=upload.seconds)
            return upload.entry

        return await patient(send, what="upload a file", seconds=UPLOAD_PATIENCE_SECONDS)

    # Models and datasets

    async def models(self, *, include_training_jobs: bool = False, at_most: int | None = None) -> list[Model]:
        """Models by name; those that collect a job's checkpoints only when asked for."""

        def fetch(token: str) -> Awaitable[pb.ListModelsResponse]:
            size = min(at_most or PAGE_SIZE, PAGE_SIZE)
            request = pb.ListModelsRequest(
                page_size=size, page_token=token, include_training_jobs=include_training_jobs
            )
            return self._stub.ListModels(request, timeout=self._timeout)

        found: list[Model] = []
        with self._peer.called():
            async for page in pages(fetch):
                found += map(Model.of, page.models)
                if at_most is not None and len(found) >= at_most:
                    break
        return found

    async def model(self, name: str) -> Model:
        with self._peer.called():
            return Model.of(await self._stub.GetModel(pb.GetModelRequest(name=name), timeout=self._timeout))

    async def ensure_model(self, name: str, *, training_job: str = "") -> None:
        """Creates "models/{model}" unless it is there."""
        request = pb.CreateModelRequest(model_id=parse_name(name, "models"), training_job=training_job)
        with suppress(AlreadyExists), self._peer.called():
            await self._stub.CreateModel(request, timeout=self._timeout)

    async def datasets(self) -> list[Dataset]:
        """Datasets by name."""

        def fetch(token: str) -> Awaitable[pb.ListDatasetsResponse]:
            request = pb.ListDatasetsRequest(page_size=PAGE_SIZE, page_token=token)
            return self._stub.ListDatasets(request, timeout=self._timeout)

        with self._peer.called():
            return [Dataset.of(dataset) async for page in pages(fetch) for dataset in page.datasets]

    async def ensure_dataset(self, name: str) -> None:
        """Creates "datasets/{dataset}" unless it is there."""
        request = pb.CreateDatasetRequest(dataset_id=parse_name(name, "datasets"))
        with suppress(AlreadyExists), self._peer.called():
            await self._stub.CreateDataset(request, timeout=self._timeout)

    async def set_alias(self, model: str, alias: str, version: int, *, expected: int | None = None) -> Alias:
        """Moves an alias of "models/{model}" while it points to `expected` (0: nowhere; None: from anywhere).

        Raises Aborted when it points elsewhere.
        """
        request = pb.SetAliasRequest(name=str(AliasName(model, alias)), version=version, expected_version=expected)
        with self._peer.called():
            return Alias.of(await self._stub.SetAlias(request, timeout=self._timeout))

    async def watch(self, after_sequence: int) -> AsyncIterator[ModelEvent]:
        """Changes of models after a sequence (-1: from now on), until the stream breaks.

        Returns once the subscription is in force: no later change will be missing.
        """
        call = self._stub.WatchModels(pb.WatchModelsRequest(after_sequence=after_sequence))
        try:  # a registry sends its headers when it has taken its place in the stream
            async with asyncio.timeout(self._timeout):
                await call.initial_metadata()
        except TimeoutError:
            call.cancel()
            raise Unavailable("the registry did not begin the watch stream in time", reason="TIMEOUT") from None
        if call.done():
            with self._peer.called():
                async for _ in call:
                    pass
            raise Unavailable("the registry ended the watch stream at once")
        return self._events(call)

    async def _events(
        self, call: grpc.aio.UnaryStreamCall[pb.WatchModelsRequest, pb.ModelEvent]
    ) -> AsyncIterator[ModelEvent]:
        try:
            with self._peer.called():
                async for event in call:
                    yield ModelEvent.of(event)
        finally:
            call.cancel()

    # Builds

    async def create_build(
        self,
        spec: BuildSpec,
        *,
        target_model: str,
        aliases: Sequence[str] = (),
        fence: Fence | None = None,
        request_id: str = "",
    ) -> Build:
        """Queues a build. The same request_id returns the same build."""
        wanted = build_to_wire(spec, target_model=target_model, target_aliases=tuple(aliases), fence=fence)
        request = pb.CreateBuildRequest(build=wanted, request_id=request_id or uuid.uuid4().hex)
        with self._peer.called():
            return Build.of(await self._stub.CreateBuild(request, timeout=self._timeout))

    async def build(self, name: str) -> Build:
        with self._peer.called():
            return Build.of(await self._stub.GetBuild(pb.GetBuildRequest(name=name), timeout=self._timeout))

    async def builds(self, *, at_most: int = PAGE_SIZE) -> list[Build]:
        """The newest builds, newest first."""
        with self._peer.called():
            page = await self._stub.ListBuilds(pb.ListBuildsRequest(page_size=at_most), timeout=self._timeout)
        return [Build.of(build) for build in page.builds]

    async def cancel_build(self, name: str) -> Build:
        with self._peer.called():
            return Build.of(await self._stub.CancelBuild(pb.CancelBuildRequest(name=name), timeout=self._timeout))

    async def cancel_fenced_builds(self, fence: Fence) -> list[Build]:
        """Stops what was asked for under earlier epochs of a fence, and refuses what is still published under one."""
        request = pb.CancelFencedBuildsRequest(fence=fence.to_wire())
        with self._peer.called():
            answer = await self._stub.CancelFencedBuilds(request, timeout=self._timeout)
        return [Build.of(build) for build in answer.builds]

    async def ended(
        self,
        build: Build,
        *,
        on_change: Callable[[Build], None] = lambda _: None,
        poll_seconds: float = BUILD_POLL_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Build:
        """The build in its final state, whichever that is; waits out a registry that restarts."""
        while not build.state.final:
            await sleep(poll_seconds)
            build = await patient(lambda: self.build(build.name), what="follow a build")  # noqa: B023 - awaited at once
            on_change(build)
        return build
