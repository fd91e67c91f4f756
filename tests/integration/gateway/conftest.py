"""The real process: gRPC to a registry, HTTP to an engine, signals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai
import pytest

from tests.fakes import FakeEngine, FakeRegistry, serve_registry

KEY = "sk-integration"
MESSAGES: Any = [{"role": "user", "content": "Who are you?"}]
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def registry() -> FakeRegistry:
    registry = FakeRegistry()
    base = registry.add("qwen", "base")
    registry.add("assistant", "adapter", base=base)
    registry.add("assistant", "adapter", base=base)
    return registry


@pytest.fixture
async def registry_address(registry: FakeRegistry) -> AsyncIterator[str]:
    async with serve_registry(registry, token="registry-token") as address:
        yield address


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine().running() as engine:
        yield engine


@pytest.fixture
async def start(registry_address: str, engine: FakeEngine) -> AsyncIterator[Start]:
    """Starts `python -m tuneloom_gateway` with settings."""
    processes: list[Process] = []

    async def start(*, descriptors: int = 0, **settings: str) -> Process:
        values = {
            "PORT": "0",
            "REGISTRY_ADDRESS": registry_address,
            "REGISTRY_TOKEN": "registry-token",
            "ENGINE_URL": engine.url,
            "API_KEY_SHA256S": hashlib.sha256(KEY.encode()).hexdigest(),
            "DRAIN_SECONDS": "10",
            **settings,
        }
        limited = ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "-"] if descriptors else []
        process = await asyncio.create_subprocess_exec(
            *limited,
            sys.executable,
            "-m",
            "tuneloom_gateway",
            stderr=PIPE,
            env={**os.environ, **{f"TUNELOOM_GATEWAY_{name}": value for name, value in values.items()}},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def process(start: Start) -> Process:
    return await start()


@pytest.fixture
async def client(process: Process) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{await url_of(process)}/v1", api_key=KEY, max_retries=0) as client:
        yield client


async def url_of(process: Process) -> str:
    """Where it listens, as its first line says."""
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    return found[0]
