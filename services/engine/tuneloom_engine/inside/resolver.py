"""The vLLM plugin: an engine gets an adapter when a request names it for the first time.

Under an engine host it asks the host, and knows no token; in a vLLM that was started by other means it asks the
registry itself. vLLM runs `register` in each of its processes. It must import little and never fail.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from tuneloom_common.children import PARENT_VARIABLE, die_with_parent
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound, TuneloomError
from tuneloom_engine.inside.adapter import Adapter

RESOLVER_NAME = "tuneloom"
# A child of vLLM's logger, so that our lines look and go like its own.
log = logging.getLogger("vllm.tuneloom")


class Source(Protocol):
    """Where adapters come from."""

    async def get(self, base: str, name: str) -> Adapter:
        """Raises InvalidArgument, NotFound or FailedPrecondition when the engine of this base cannot serve the name."""


def register() -> None:
    """Entry point of the plugin."""
    end_with_the_host()
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class RegistryResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is untyped here
        """Answers vLLM. Host or registry are first contacted when the first adapter is asked for."""

        def __init__(self) -> None:
            self._open = cache(open_source)

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


def open_source() -> tuple[Source, str]:
    """From the environment, inside vLLM's event loop; the name of the base is empty where nobody has said it."""
    if os.environ.get("TUNELOOM_ENGINE_ADAPTERS_SOCKET"):
        from tuneloom_engine.inside.hosted import HostedAdapters
        from tuneloom_engine.settings import HostedSettings

        hosted = HostedSettings()  # type: ignore[call-arg]  # comes from the environment
        return HostedAdapters(hosted.adapters_socket), hosted.serves
    from tuneloom_engine.settings import ResolverSettings
    from tuneloom_engine.sources import open_adapters

    settings = ResolverSettings()  # type: ignore[call-arg]  # comes from the environment
    return open_adapters(settings), settings.serves


async def resolve(open_: Callable[[], tuple[Source, str]], base_model_name: str, name: str) -> Adapter | None:
    """None when the name means nothing here, which vLLM answers with 404.

    A registry or store that fails is not the name's fault: the request gets a 503 with the reason, and vLLM
    goes on.
    """
    from fastapi import HTTPException

    try:
        source, serves = open_()
        return await source.get(serves or base_model_name, name)
    except (InvalidArgument, NotFound, FailedPrecondition) as error:
        log.warning("Adapter %r is not served: %s", name, error)
        return None
    except TuneloomError as error:
        log.error("Adapter %r cannot be resolved: %s", name, error)
        raise HTTPException(503, f"the adapter cannot be loaded now: {error.message}") from None
    except Exception:
        log.exception("Adapter %r cannot be resolved", name)
        raise HTTPException(503, "the adapter cannot be loaded now; the engine's log has the cause") from None
