"""Between the registry's vocabulary and its wire contract."""

from __future__ import annotations

import re
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tuneloom.common.v1 import fence_pb2
from tuneloom.registry.v1 import builds_pb2, registry_pb2, versions_pb2
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.kinds import Kind
from tuneloom_common.names import AliasName, VersionName
from tuneloom_registry.builds import (
    DEFAULT_MAX_SHARD_BYTES,
    DEFAULT_MIN_GREEDY_AGREEMENT,
    Build,
    BuildSpec,
    BuildState,
)
from tuneloom_registry.versions import Alias, Collection, Fence, ModelEvent, Version

MAX_SCOPE_CHARS = 128
MAX_EPOCH = 2**31 - 1
_SCOPE = re.compile(r"[A-Za-z0-9._/-]+")
_KINDS = {kind: versions_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.name}") for kind in Kind}
_STATES = {state: builds_pb2.BuildState.Value(f"BUILD_STATE_{state.name}") for state in BuildState}


def to_model(collection: Collection) -> versions_pb2.Model:
    return versions_pb2.Model(
        name=collection.name,
        create_time=_time(collection.create_time),
        training_job=collection.training_job,
        latest_version=collection.latest_version,
        aliases=collection.aliases,
    )


def to_dataset(collection: Collection) -> versions_pb2.Dataset:
    return versions_pb2.Dataset(
        name=collection.name,
        create_time=_time(collection.create_time),
        latest_version=collection.latest_version,
    )


def to_version(version: Version) -> versions_pb2.Version:
    return versions_pb2.Version(
        name=str(version.name),
        digest=version.digest,
        kind=_KINDS[version.manifest.kind],
        manifest_json=version.manifest.canonical().decode(),
        create_time=_time(version.create_time),
        size_bytes=version.manifest.size_bytes,
        engine_name=version.engine_name,
        aliases=version.aliases,
    )


def to_alias(alias: Alias) -> versions_pb2.Alias:
    return versions_pb2.Alias(
        name=str(AliasName(alias.parent, alias.alias)),
        version=alias.version,
        update_time=_time(alias.update_time),
    )


def to_event(event: ModelEvent) -> registry_pb2.ModelEvent:
    return registry_pb2.ModelEvent(sequence=event.sequence, model=event.model, alias=event.alias, version=event.version)


def to_build(build: Build) -> builds_pb2.Build:
    message = builds_pb2.Build(
        name=f"builds/{build.id}",
        target_model=build.target_model,
        target_aliases=build.target_aliases,
        state=_STATES[build.state],
        error=build.error,
        progress=build.progress,
        result_version=build.result_version,
        create_time=_time(build.create_time),
        end_time=_time(build.end_time) if build.end_time else None,
        fence=fence_pb2.Fence(scope=build.fence.scope, epoch=build.fence.epoch) if build.fence else None,
    )
    if build.spec.action == "convert":
        message.convert.checkpoint = build.spec.source
    else:
        message.merge.adapter = build.spec.source
        message.merge.max_shard_size_bytes = build.spec.max_shard_size_bytes
        message.merge.proof_prompts.extend(build.spec.proof_prompts)
        message.merge.min_greedy_agreement = build.spec.min_greedy_agreement
    return message


def from_build_spec(message: builds_pb2.Build) -> BuildSpec:
    """The spec of a requested build; raises InvalidArgument naming the field."""
    which = message.WhichOneof("spec")
    if which == "convert":
        VersionName.parse(message.convert.checkpoint, field="build.convert.checkpoint")
        return BuildSpec(action="convert", source=message.convert.checkpoint)
    if which == "merge":
        merge = message.merge
        VersionName.parse(merge.adapter, field="build.merge.adapter")
        if merge.max_shard_size_bytes < 0:
            raise InvalidArgument(
                "build.merge.max_shard_size_bytes: must not be negative",
                field="build.merge.max_shard_size_bytes",
            )
        if not 0 <= merge.min_greedy_agreement <= 1:
            raise InvalidArgument(
                "build.merge.min_greedy_agreement: must be between 0 and 1",
                field="build.merge.min_greedy_agreement",
            )
        return BuildSpec(
            action="merge",
            source=merge.adapter,
            max_shard_size_bytes=merge.max_shard_size_bytes or DEFAULT_MAX_SHARD_BYTES,
            proof_prompts=tuple(merge.proof_prompts),
            min_greedy_agreement=merge.min_greedy_agreement or DEFAULT_MIN_GREEDY_AGREEMENT,
        )
    raise InvalidArgument("build: set convert or merge", field="build")


def from_fence(message: fence_pb2.Fence, *, field: str) -> Fence | None:
    if not message.scope:
        return None
    if len(message.scope) > MAX_SCOPE_CHARS or not _SCOPE.fullmatch(message.scope):
        raise InvalidArgument(
            f"{field}.scope: a name such as trainingJobs/job-3f2a, of at most {MAX_SCOPE_CHARS} characters",
            field=f"{field}.scope",
        )
    if not 1 <= message.epoch <= MAX_EPOCH:
        raise InvalidArgument(f"{field}.epoch: from 1 to {MAX_EPOCH}, not {message.epoch}", field=f"{field}.epoch")
    return Fence(message.scope, message.epoch)


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
