"""One engine process: started, asked how it is, drained. Knows an engine by its HTTP API only.

It listens on a private Unix socket. A port would be open to every user of the machine, and once given back it would be
anybody's: who takes it would be sent prompts by a gateway that still remembers it.
"""

from __future__ import annotations

import asyncio
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

    def __init__(self, process: children.Child, socket: Path, log: Path) -> None:
        self._process = process
        self._socket = socket
        self.log = log

    @classmethod
    async def spawn(cls, launch: Launch, *, socket: Path, log: Path) -> EngineProcess:
        """Runs what will listen on the socket. The log of the run before is kept as `<log>.previous`."""
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.previous"))
        return cls(await children.spawn(launch.command, log=log, env=launch.environment), socket, log)

    @property
    def url(self) -> str:
        return f"unix:{self._socket}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def healthy(self) -> bool:
        """Whether it answers /health."""
        return await self._get("/health") is not None and self.running

    async def activity(self) -> Activity | None:
        """From vLLM's metrics; None for an engine that does not answer or has no such metrics."""
        try:
            lines = (await self._get("/metrics") or "").splitlines()
            unfinished = _values(lines, _UNFINISHED)
            return Activity(sum(unfinished), sum(_values(lines, _TOKENS))) if unfinished else None
        except ValueError:
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

    async def _get(self, path: str) -> str | None:
        """The body of a good answer."""
        connector = aiohttp.UnixConnector(str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=PROBE_TIMEOUT) as session,
                session.get(f"http://engine{path}") as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None


def _values(lines: list[str], metrics: tuple[str, ...]) -> list[float]:
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(metrics)]
