"""Builds, as their requesters see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from tuneloom.common.v1 import fence_pb2
from tuneloom.registry.v1 import builds_pb2
from tuneloom_client.versions import time_of


class BuildState(StrEnum):
    """UNSPECIFIED stands for states that are newer than this client."""

    UNSPECIFIED = "unspecified"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease a writer works under; see tuneloom.common.v1.Fence."""

    scope: str
    epoch: int

    def to_wire(self) -> fence_pb2.Fence:
        return fence_pb2.Fence(scope=self.scope, epoch=self.epoch)


@dataclass(frozen=True, slots=True)
class ConvertSpec:
    """From a trainer's checkpoint version to an adapter, or after a full fine-tune to a model."""

    checkpoint: str


@dataclass(frozen=True, slots=True)
class MergeSpec:
    """From an adapter version to a merged model. Zero means the registry's default."""

    adapter: str
    max_shard_size_bytes: int = 0
    proof_prompts: tuple[str, ...] = ()
    min_greedy_agreement: float = 0.0


BuildSpec = ConvertSpec | MergeSpec


@dataclass(frozen=True, slots=True)
class Build:
    """`source` is the version that is built from, `result_version` what came of it."""

    name: str
    action: Literal["convert", "merge", ""]
    source: str
    target_model: str
    target_aliases: tuple[str, ...]
    state: BuildState
    error: str
    progress: str
    result_version: str
    create_time: datetime
    end_time: datetime | None

    @classmethod
    def of(cls, message: builds_pb2.Build) -> Build:
        return cls(
            name=message.name,
            action=message.WhichOneof("spec") or "",
            source=message.convert.checkpoint or message.merge.adapter,
            target_model=message.target_model,
            target_aliases=tuple(message.target_aliases),
            state=_STATES.get(message.state, BuildState.UNSPECIFIED),
            error=message.error,
            progress=message.progress,
            result_version=message.result_version,
            create_time=time_of(message.create_time),
            end_time=time_of(message.end_time) if message.HasField("end_time") else None,
        )

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


def build_to_wire(
    spec: BuildSpec, *, target_model: str, target_aliases: tuple[str, ...], fence: Fence | None
) -> builds_pb2.Build:
    """The message that asks for a build."""
    message = builds_pb2.Build(
        target_model=target_model, target_aliases=target_aliases, fence=fence.to_wire() if fence else None
    )
    match spec:
        case ConvertSpec(checkpoint):
            message.convert.CopyFrom(builds_pb2.ConvertSpec(checkpoint=checkpoint))
        case MergeSpec():
            message.merge.CopyFrom(
                builds_pb2.MergeSpec(
                    adapter=spec.adapter,
                    max_shard_size_bytes=spec.max_shard_size_bytes,
                    proof_prompts=spec.proof_prompts,
                    min_greedy_agreement=spec.min_greedy_agreement,
                )
            )
    return message


_STATES = {builds_pb2.BuildState.Value(f"BUILD_STATE_{state.name}"): state for state in BuildState}
