"""The command line and environment of one vLLM server process."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.kinds import Kind
from tuneloom_engine.settings import HostSettings

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run, and what to add to the environment."""

    command: tuple[str, ...]
    environment: dict[str, str]


def plan(settings: HostSettings, *, name: str, kind: Kind, directory: Path, socket: Path, adapters: Path) -> Launch:
    """A server for the full-weight version in `directory`, which answers to `name` on `socket`, and asks for adapters
    on `adapters`.

    Adapters are served on base models only: an adapter of a merged model would be one of another base.
    """
    arguments = _common(settings, name=name, directory=directory, socket=socket)
    environment = _quiet() | {"VLLM_RPC_BASE_PATH": str(socket.parent)}  # the processes of vLLM talk there
    if kind is Kind.BASE:
        arguments += _lora(settings)
        environment |= _resolver(name, adapters)
    if settings.device == "cpu":
        arguments += ("--enforce-eager", "--kv-cache-memory-bytes", str(int(settings.kv_cache_gib * GIB)))
        environment |= _one_process(settings.threads or max(1, _processors() - 1))
    else:
        share = settings.gpu_memory_fraction / settings.max_replicas
        arguments += ("--gpu-memory-utilization", f"{share:.3f}")
    return Launch((*_command(settings), *arguments, *settings.extra_arguments), environment)


def check_installed(settings: HostSettings) -> None:
    """Raises FailedPrecondition when there is no engine environment."""
    program = _command(settings)[0]
    if shutil.which(program) is None:
        raise FailedPrecondition(
            f"the engine environment is missing ({program} cannot be run); run 'make install-engine', or let "
            "TUNELOOM_ENGINE_PYTHON name an interpreter that has vLLM",
            reason="ENGINE_NOT_INSTALLED",
        )


def memory(settings: HostSettings) -> str:
    """What bounds the memory of one engine, for people."""
    if settings.device == "cpu":
        return f"weights + {settings.kv_cache_gib:g} GiB cache"
    return f"{settings.gpu_memory_fraction / settings.max_replicas:.0%} of the GPU"


def _command(settings: HostSettings) -> tuple[str, ...]:
    # Not resolved: a virtual environment's interpreter is a link, and known by where the link lies.
    return settings.command or (str(settings.python.absolute()), "-m", "tuneloom_engine.inside.serve")


def _common(settings: HostSettings, *, name: str, directory: Path, socket: Path) -> tuple[str, ...]:
    return (
        "--model",
        str(directory),
        "--served-model-name",
        name,
        "--uds",
        str(socket),
        "--dtype",
        settings.dtype or ("float32" if settings.device == "cpu" else "auto"),
        "--max-model-len",
        str(settings.max_model_len or "auto"),
        "--load-format",
        "safetensors",
        # Sampling defaults come from the client, not from a file in the model; stop tokens still do.
        "--generation-config",
        "vllm",
        # Running requests have finished by then: the front door drains before vLLM shuts down.
        "--shutdown-timeout",
        "1",
        "--middleware",
        "tuneloom_engine.inside.frontdoor.FrontDoor",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
    )


def _lora(settings: HostSettings) -> tuple[str, ...]:
    return (
        "--enable-lora",
        "--max-lora-rank",
        str(settings.max_lora_rank),
        "--max-loras",
        str(settings.max_loras),
        "--max-cpu-loras",
        str(max(settings.max_cpu_loras, settings.max_loras)),
    )


def _resolver(name: str, adapters: Path) -> dict[str, str]:
    return {
        # vLLM asks resolvers only under this switch. The routes it also opens are closed by the front door.
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "TUNELOOM_ENGINE_ADAPTERS_SOCKET": str(adapters),
        "TUNELOOM_ENGINE_SERVES": name,
    }


def _quiet() -> dict[str, str]:
    """No telemetry, no downloads, no plugin but ours."""
    return {
        "VLLM_PLUGINS": "tuneloom",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _one_process(threads: int) -> dict[str, str]:
    """The model runs in vLLM's scheduler process: one process less, a start in half the time, more throughput.

    With a worker process, vLLM binds its threads to cores, and all engines to the same ones. Unbound threads
    must wait passively: once there are more of them than free cores, active waiting costs a factor of 30.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
