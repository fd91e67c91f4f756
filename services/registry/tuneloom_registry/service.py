"""The gRPC face of the registry. Handlers translate, call one use case and translate back; no handler has a `try`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tuneloom.common.v1 import fence_pb2
from tuneloom.registry.v1 import builds_pb2, registry_pb2, registry_pb2_grpc, versions_pb2
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.grpc.edge import caller
from tuneloom_common.ids import check_id, check_sha256
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest
from tuneloom_common.names import AliasName, Reference, VersionName, parse_name
from tuneloom_common.objects import ObjectStore
from tuneloom_common.paging import decode_number, decode_token, encode_token, page_limit
from tuneloom_common.receiving import Announced, Receiving
from tuneloom_registry import mapping
from tuneloom_registry.admission import check_base, check_contents
from tuneloom_registry.datasets import DatasetChecks
from tuneloom_registry.store import BuildStore, VersionStore
from tuneloom_registry.store.versions import MODELS
from tuneloom_registry.versions import Fence, check_registrable

WATCH_POLL_SECONDS = 1.0

SCOPES = {
    "UploadBlob": "registry:write",
    "DownloadBlob": "registry:read",
    "CreateDataset": "registry:write",
    "GetDataset": "registry:read",
    "ListDatasets": "registry:read",
    "CreateModel": "registry:write",
    "GetModel": "registry:read",
    "ListModels": "registry:read",
    "CreateVersion": "registry:write",
    "GetVersion": "registry:read",
    "ListVersions": "registry:read",
    "ResolveVersion": "registry:read",
    "SetAlias": "registry:write",
    "WatchModels": "registry:read",
    "CreateBuild": "registry:write",
    "GetBuild": "registry:read",
    "ListBuilds": "registry:read",
    "CancelBuild": "registry:write",
    "CancelFencedBuilds": "registry:write",
}


class RegistryService(registry_pb2_grpc.RegistryServiceServicer):
    """See registry.proto."""

    def __init__(
        self,
        *,
        versions: VersionStore,
        builds: BuildStore,
        objects: ObjectStore,
        receiving: Receiving,
        datasets: DatasetChecks,
    ) -> None:
        self._versions = versions
        self._builds = builds
        self._objects = objects
        self._receiving = receiving
        self._datasets = datasets

    # Blobs

    async def UploadBlob(  # noqa: N802
        self, request_iterator: AsyncIterator[registry_pb2.UploadBlobRequest], context: Any
    ) -> versions_pb2.Blob:
        first = await self._receiving.next(request_iterator)
        blob = first.blob if first else versions_pb2.Blob()
        chunks = (part.chunk async for part in request_iterator)
        await self._receiving.take(Announced(blob.sha256, blob.size_bytes), chunks)
        return blob

    async def DownloadBlob(  # noqa: N802
        self, request: registry_pb2.DownloadBlobRequest, context: Any
    ) -> AsyncIterator[registry_pb2.DownloadBlobResponse]:
        check_sha256(request.sha256, field="sha256")
        async for chunk in self._objects.read_blob(request.sha256):
            yield registry_pb2.DownloadBlobResponse(chunk=chunk)

    # Collections

    async def CreateDataset(  # noqa: N802
        self, request: registry_pb2.CreateDatasetRequest, context: Any
    ) -> versions_pb2.Dataset:
        name = f"datasets/{check_id(request.dataset_id, field='dataset_id')}"
        if request.validate_only:
            return versions_pb2.Dataset(name=name)
        return mapping.to_dataset(await self._versions.create_collection(name, request_id=request.request_id))

    async def GetDataset(  # noqa: N802
        self, request: registry_pb2.GetDatasetRequest, context: Any
    ) -> versions_pb2.Dataset:
        name = f"datasets/{parse_name(request.name, 'datasets')}"
        return mapping.to_dataset(await self._versions.get_collection(name))

    async def ListDatasets(  # noqa: N802
        self, request: registry_pb2.ListDatasetsRequest, context: Any
    ) -> registry_pb2.ListDatasetsResponse:
        limit = page_limit(request.page_size)
        found = await self._versions.list_collections(
            "datasets/", after=decode_token(request.page_token), limit=limit + 1
        )
        return registry_pb2.ListDatasetsResponse(
            datasets=[mapping.to_dataset(collection) for collection in found[:limit]],
            next_page_token=encode_token(found[limit - 1].name) if len(found) > limit else "",
        )

    async def CreateModel(  # noqa: N802
        self, request: registry_pb2.CreateModelRequest, context: Any
    ) -> versions_pb2.Model:
        name = f"models/{check_id(request.model_id, field='model_id')}"
        if request.validate_only:
            return versions_pb2.Model(name=name)
        created = await self._versions.create_collection(
            name, request_id=request.request_id, training_job=request.training_job
        )
        return mapping.to_model(created)

    async def GetModel(self, request: registry_pb2.GetModelRequest, context: Any) -> versions_pb2.Model:  # noqa: N802
        name = f"models/{parse_name(request.name, 'models')}"
        return mapping.to_model(await self._versions.get_collection(name))

    async def ListModels(  # noqa: N802
        self, request: registry_pb2.ListModelsRequest, context: Any
    ) -> registry_pb2.ListModelsResponse:
        limit = page_limit(request.page_size)
        found = await self._versions.list_collections(
            "models/",
            after=decode_token(request.page_token),
            limit=limit + 1,
            include_training_jobs=request.include_training_jobs,
        )
        return registry_pb2.ListModelsResponse(
            models=[mapping.to_model(collection) for collection in found[:limit]],
            next_page_token=encode_token(found[limit - 1].name) if len(found) > limit else "",
        )

    # Versions

    async def CreateVersion(  # noqa: N802
        self, request: registry_pb2.CreateVersionRequest, context: Any
    ) -> versions_pb2.Version:
        manifest = Manifest.parse(request.manifest_json)
        check_registrable(manifest)
        check_contents(manifest)
        collection, _, _ = request.parent.partition("/")
        if (manifest.kind is Kind.DATASET) != (collection == "datasets"):
            raise InvalidArgument(
                f"parent: a {manifest.kind} cannot be a version of {request.parent!r}", field="parent"
            )
        for alias in request.aliases:
            check_id(alias, field="aliases")
        if manifest.kind is Kind.DATASET:
            await self._datasets.require(manifest)
        await self._versions.get_collection(request.parent)
        if (base := manifest.base) is not None:
            found = await self._versions.find_digest(base.digest, parent=f"models/{base.model}")
            check_base(base, found.manifest if found else None)
        if request.validate_only:
            return versions_pb2.Version(digest=manifest.digest)
        await self._objects.put_manifest(manifest)
        version = await self._versions.create_version(
            request.parent,
            manifest,
            set_aliases=request.aliases,
            fence=_fence(request.fence, field="fence"),
        )
        return mapping.to_version(version)

    async def GetVersion(  # noqa: N802
        self, request: registry_pb2.GetVersionRequest, context: Any
    ) -> versions_pb2.Version:
        return mapping.to_version(await self._versions.get_version(VersionName.parse(request.name)))

    async def ListVersions(  # noqa: N802
        self, request: registry_pb2.ListVersionsRequest, context: Any
    ) -> registry_pb2.ListVersionsResponse:
        limit = page_limit(request.page_size)
        before = decode_number(request.page_token)
        found = await self._versions.list_versions(request.parent, before=before, limit=limit + 1)
        return registry_pb2.ListVersionsResponse(
            versions=[mapping.to_version(version) for version in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1].name.number)) if len(found) > limit else "",
        )

    async def ResolveVersion(  # noqa: N802
        self, request: registry_pb2.ResolveVersionRequest, context: Any
    ) -> versions_pb2.Version:
        return mapping.to_version(await self._versions.resolve(Reference.parse(request.reference)))

    # Aliases

    async def SetAlias(self, request: registry_pb2.SetAliasRequest, context: Any) -> versions_pb2.Alias:  # noqa: N802
        name = AliasName.parse(request.name)
        expected = request.expected_version if request.HasField("expected_version") else None
        moved = await self._versions.set_alias(name.parent, name.alias, request.version, expected=expected)
        return mapping.to_alias(moved)

    async def WatchModels(  # noqa: N802
        self, request: registry_pb2.WatchModelsRequest, context: Any
    ) -> AsyncIterator[registry_pb2.ModelEvent]:
        sequence = request.after_sequence
        if sequence < 0:
            sequence = await self._versions.last_sequence()
        with self._versions.notifier.subscribe(MODELS) as changes:
            await context.send_initial_metadata(())
            while True:
                events = await self._versions.events_after(sequence)
                for event in events:
                    sequence = event.sequence
                    yield mapping.to_event(event)
                if not events:
                    await changes.wait(WATCH_POLL_SECONDS)

    # Builds

    async def CreateBuild(  # noqa: N802
        self, request: registry_pb2.CreateBuildRequest, context: Any
    ) -> builds_pb2.Build:
        spec = mapping.from_build_spec(request.build)
        source = await self._versions.get_version(VersionName.parse(spec.source, field="build"))
        needed = {"convert": Kind.CHECKPOINT, "merge": Kind.ADAPTER}[spec.action]
        if source.manifest.kind is not needed:
            raise InvalidArgument(
                f"build.{spec.action}: {spec.source} is a {source.manifest.kind}, a {spec.action} needs a {needed}",
                field=f"build.{spec.action}",
            )
        parse_name(request.build.target_model, "models", field="build.target_model")
        await self._versions.get_collection(request.build.target_model)
        for alias in request.build.target_aliases:
            check_id(alias, field="build.target_aliases")
        if request.validate_only:
            return request.build
        build = await self._builds.create(
            spec,
            target_model=request.build.target_model,
            target_aliases=request.build.target_aliases,
            fence=_fence(request.build.fence, field="build.fence"),
            request_id=request.request_id,
        )
        return mapping.to_build(build)

    async def GetBuild(self, request: registry_pb2.GetBuildRequest, context: Any) -> builds_pb2.Build:  # noqa: N802
        return mapping.to_build(await self._builds.get(parse_name(request.name, "builds")))

    async def ListBuilds(  # noqa: N802
        self, request: registry_pb2.ListBuildsRequest, context: Any
    ) -> registry_pb2.ListBuildsResponse:
        limit = page_limit(request.page_size)
        before = decode_number(request.page_token)
        found = await self._builds.list_builds(before=before, limit=limit + 1)
        return registry_pb2.ListBuildsResponse(
            builds=[mapping.to_build(build) for _, build in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1][0])) if len(found) > limit else "",
        )

    async def CancelBuild(self, request: registry_pb2.CancelBuildRequest, context: Any) -> builds_pb2.Build:  # noqa: N802
        return mapping.to_build(await self._builds.request_cancel(parse_name(request.name, "builds")))

    async def CancelFencedBuilds(  # noqa: N802
        self, request: registry_pb2.CancelFencedBuildsRequest, context: Any
    ) -> registry_pb2.CancelFencedBuildsResponse:
        fence = _fence(request.fence, field="fence")
        if fence is None:
            raise InvalidArgument("fence.scope: it names what the builds were asked for under", field="fence.scope")
        stopped = await self._builds.cancel_fenced(fence)
        return registry_pb2.CancelFencedBuildsResponse(builds=[mapping.to_build(build) for build in stopped])


def _fence(message: fence_pb2.Fence, *, field: str) -> Fence | None:
    """Who may name a fence can keep its holder from publishing: that is for those who lease work, not for uploads."""
    fence = mapping.from_fence(message, field=field)
    if fence is not None:
        caller.get().require("registry:fence")
    return fence
