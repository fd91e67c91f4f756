"""Adapters as an engine gets them: checked against the base it serves, made available as a directory."""

from __future__ import annotations

import re
from pathlib import PurePath

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.kinds import Kind
from tuneloom_common.names import EngineName
from tuneloom_engine.artifacts import Artifact, Artifacts
from tuneloom_engine.inside.adapter import Adapter

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Adapters:
    """The adapters that fit a base."""

    def __init__(self, artifacts: Artifacts, *, max_lora_rank: int) -> None:
        self._artifacts = artifacts
        self._max_lora_rank = max_lora_rank

    async def get(self, base: str, name: str) -> Adapter:
        """`base` is the engine name of what the engine serves, or its directory, named by that or by its digest.

        Raises InvalidArgument, NotFound or FailedPrecondition when this engine cannot serve the name.
        """
        artifact = await self._artifacts.find(name)
        self._check(artifact, PurePath(base).name)
        directory = await self._artifacts.fetch(artifact, holder=base)
        return Adapter(name, int(artifact.digest[:15], 16) + 1, directory)

    def _check(self, artifact: Artifact, serves: str) -> None:
        manifest = artifact.manifest
        if manifest.kind is not Kind.ADAPTER or manifest.base is None:
            raise FailedPrecondition(
                f"{artifact.name} is of kind {manifest.kind}, not an adapter; full weights need an engine of their own",
                reason="NOT_AN_ADAPTER",
            )
        if manifest.base.digest[:12] != _digest12(serves):
            raise FailedPrecondition(
                f"{artifact.name} was trained on {manifest.base.model} ({manifest.base.digest[:12]}), but "
                f"this engine serves {serves}; send its requests to an engine of its own base",
                reason="OTHER_BASE",
            )
        if manifest.lora is not None and manifest.lora.r > self._max_lora_rank:
            raise FailedPrecondition(
                f"{artifact.name} has rank {manifest.lora.r}, this engine takes {self._max_lora_rank} at most; "
                "raise TUNELOOM_ENGINE_MAX_LORA_RANK and start the engine again",
                reason="RANK_TOO_HIGH",
            )


def _digest12(serves: str) -> str:
    """Of an engine name, or of a directory that is named by its digest."""
    return serves[:12] if _SHA256.fullmatch(serves) else EngineName.parse(serves).digest12
