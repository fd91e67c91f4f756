"""The vLLM plugin: an engine asks the registry for an adapter when a request names it for the first time.

vLLM runs `register` in each of its processes. It must import little and never fail.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from tuneloom_common.children import PARENT_VARIABLE, die_with_parent
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound, TuneloomError
from tuneloom_common.kinds import Kind
from tuneloom_common.names import EngineName
from tuneloom_engine.artifacts import Artifact, Artifacts, GrpcRegistry
from tuneloom_engine.settings import ResolverSettings

RESOLVER_NAME = "tuneloom"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A child of vLLM's logger, so that our lines look and go like its own.
log = logging.getLogger("vllm.tuneloom")


def register() -> None:
    """Entry point of the plugin."""
    end_with_the_host()
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class RegistryResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is untyped here
        """Answers vLLM. The registry is first contacted when the first adapter is asked for."""

        def __init__(self) -> None:
            self._open = cache(open_adapters)

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
            adapter = await resolve(self._open, base_model_name, lora_name)
            return adapter and LoRARequest(adapter.name, adapter.id, str(adapter.directory))

    LoRAResolverRegistry.register_resolver(RESOLVER_NAME, RegistryResolver())


def end_with_the_host() -> None:
    """Ties each process that vLLM starts to the one that started it, so that none outlives a killed host.

    `serve` has done the same for the first. A vLLM that was started by other means is left alone.
    """
    this = str(os.getpid())
    if multiprocessing.parent_process() is None or os.environ.get(PARENT_VARIABLE, this) == this:
        return
    die_with_parent()
    os.environ[PARENT_VARIABLE] = this


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter ready to be loaded. `id` is fixed by the content, above 0 and below 2**60."""

    name: str
    id: int
    directory: Path


class Adapters:
    """The adapters that fit the base model `serves`, by engine name."""

    def __init__(self, artifacts: Artifacts, *, serves: str, max_lora_rank: int) -> None:
        self._artifacts = artifacts
        self._serves = serves
        self._max_lora_rank = max_lora_rank

    async def get(self, base_model_name: str, name: str) -> Adapter:
        """Raises InvalidArgument, NotFound or FailedPrecondition when this engine cannot serve the name."""
        artifact = await self._artifacts.find(name)
        self._check(artifact, self._serves or PurePath(base_model_name).name)
        directory = await self._artifacts.fetch(artifact)
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


def open_adapters() -> Adapters:
    """Composes the source of adapters from the environment, inside vLLM's event loop."""
    from tuneloom_common.grpc import open_channel
    from tuneloom_common.objects import ObjectStore

    settings = ResolverSettings()  # type: ignore[call-arg]  # comes from the environment
    token = settings.registry_token.get_secret_value() if settings.registry_token else None
    registry = GrpcRegistry(open_channel(settings.registry_address, token=token))
    artifacts = Artifacts(registry, ObjectStore(settings.objects_url), settings.cache_dir)
    return Adapters(artifacts, serves=settings.serves, max_lora_rank=settings.max_lora_rank)


async def resolve(open_: Callable[[], Adapters], base_model_name: str, name: str) -> Adapter | None:
    """None when the name means nothing here, which vLLM answers with 404.

    A registry or store that fails is not the name's fault: the request gets a 503 with the reason, and vLLM
    goes on.
    """
    from fastapi import HTTPException

    try:
        return await open_().get(base_model_name, name)
    except (InvalidArgument, NotFound, FailedPrecondition) as error:
        log.warning("Adapter %r is not served: %s", name, error)
        return None
    except TuneloomError as error:
        log.error("Adapter %r cannot be resolved: %s", name, error)
        raise HTTPException(503, f"the adapter cannot be loaded now: {error.message}") from None
    except Exception:
        log.exception("Adapter %r cannot be resolved", name)
        raise HTTPException(503, "the adapter cannot be loaded now; the engine's log has the cause") from None


def _digest12(serves: str) -> str:
    """Of an engine name, or of a directory that is named by its digest."""
    return serves[:12] if _SHA256.fullmatch(serves) else EngineName.parse(serves).digest12
