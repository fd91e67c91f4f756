"""One engine process: started, asked how it is, drained. Knows an engine by its HTTP API only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tuneloom_common import children
from tuneloom_engine.launch import Launch

PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5)
_UNFINISHED = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_TOKENS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


@dataclass(frozen=True, slots=True)
class Activity:
    """How many requests an engine has in hand, and how many tokens it has read and written in its life."""

    unfinished: float
    tokens: float


class EngineProcess:
    """A spawned engine. `log` holds its output."""

    def __init__(self, process: children.Child, port: int, log: Path) -> None:
        self._process = process
        self.port = port
        self.log = log

    @classmethod
    async def spawn(cls, plan: Callable[[int], Launch], log: Path) -> EngineProcess:
        """Runs the plan for a free port. The log of the run before is kept as `<log>.previous`."""
        port = _free_port()
        launch = plan(port)
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.previous"))
        process = await children.spawn(launch.command, log=log, env=launch.environment)
        return cls(process, port, log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def healthy(self, session: aiohttp.ClientSession) -> bool:
        """Whether it answers /health."""
        try:
            async with session.get(f"{self.url}/health", timeout=PROBE_TIMEOUT) as response:
                return response.status == 200 and self.running
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def activity(self, session: aiohttp.ClientSession) -> Activity | None:
        """From vLLM's metrics; None for an engine that does not answer or has no such metrics."""
        try:
            async with session.get(f"{self.url}/metrics", timeout=PROBE_TIMEOUT) as response:
                lines = (await response.text()).splitlines()
            unfinished = _values(lines, _UNFINISHED)
            return Activity(sum(unfinished), sum(_values(lines, _TOKENS))) if unfinished else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def wait(self) -> int:
        """The exit status. What the engine leaves behind in its process group is killed."""
        return await self._process.wait()

    async def drain(self, grace_seconds: float) -> None:
        """SIGTERM to the server alone, which then finishes its requests; after the grace, SIGKILL to all."""
        if self.running:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace_seconds)
            except TimeoutError:
                pass
        await self._process.stop(grace_seconds=0)


def _values(lines: list[str], metrics: tuple[str, ...]) -> list[float]:
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(metrics)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
