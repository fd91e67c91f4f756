"""A host as its clients see it, and waiting for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

OpenHost = Callable[..., Any]


async def ready(client: Any, name: str, *, status: int = 200) -> dict[str, Any]:
    async with client.post(f"/replicas/{name}") as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


def reaching(url: str) -> aiohttp.ClientSession:
    scheme, _, path = url.partition(":")
    assert scheme == "unix"
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path))


async def shown(client: Any, name: str) -> dict[str, Any]:
    async with client.get(f"/replicas/{name}") as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def listed(client: Any) -> dict[str, dict[str, Any]]:
    async with client.get("/replicas") as response:
        return {replica["name"]: replica for replica in (await response.json())["replicas"]}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def metrics(*, running: int, tokens: int) -> str:
    return (
        "# HELP vllm:num_requests_running Requests in execution.\n"
        f'vllm:num_requests_running{{engine="0",model_name="x"}} {running}.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="x"} 0.0\n'
        f'vllm:generation_tokens_total{{engine="0",model_name="x"}} {tokens}.0\n'
    )


async def soon(value: Any) -> Any:
    return value
