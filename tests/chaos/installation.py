"""One installation in a temporary home, as the chaos scripts drive it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.victims import processes
from tests.e2e.conftest import Installation, free_ports
from tuneloom_cli.clients import Services
from tuneloom_cli.local.home import Home
from tuneloom_common.errors import TuneloomError

ANSWER_SECONDS = 180.0
GONE_SECONDS = 90.0
# Restarts without bound: the supervisor otherwise gives up, rightly, on services that die this often. The budgets of
# lost workers have tests of their own.
ENVIRONMENT = {
    "TUNELOOM_UP_RESTARTS_PER_MINUTE": "1000",
    "TUNELOOM_TRAINER_MAX_ATTEMPTS": "50",
    "TUNELOOM_REGISTRY_BUILD_MAX_ATTEMPTS": "50",
    "TUNELOOM_TRAINER_SLOTS": "2",
}


@dataclass
class Ground:
    """`services` is set once it is up."""

    installation: Installation
    services: Services = field(init=False)

    @classmethod
    def prepare(cls, directory: Path) -> Ground:
        os.environ.update({**ENVIRONMENT, **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ}})
        names = ("gateway", "engine", "registry", "trainer")
        ports = tuple(f"--{name}-port={port}" for name, port in zip(names, free_ports(len(names)), strict=True))
        return cls(Installation(Home(directory / "home"), ports))

    @property
    def home(self) -> Path:
        return self.installation.home.path

    async def up(self) -> None:
        """Starts everything, again after a start that was too early for ports still held."""
        for attempt in range(5):
            done = await asyncio.to_thread(
                self.installation.run, "up", "--detach", *self.installation.ports, check=False
            )
            if done.returncode == 0:
                return
            print(f"up, attempt {attempt + 1}: {done.stderr.strip()[-400:]}", flush=True)
            await asyncio.sleep(2)
        raise AssertionError("the installation does not start")

    async def down(self) -> list[int]:
        """Stops everything; the pids of what is left after a grace."""
        await asyncio.to_thread(self.installation.run, "down", check=False)
        return await self.gone()

    async def gone(self) -> list[int]:
        return await until_gone(self.home)

    async def answered(self) -> None:
        """Returns when registry, trainer, gateway and engine host all answer."""
        await until_answered([self.services])


async def until_gone(home: Path, *, look: Callable[[], object] = lambda: None) -> list[int]:
    """Waits for the end of everything of a home; the pids of what is left after a grace. `look` is called meanwhile."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        look()
        left = [pid for pid, _ in processes(home)]
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.1)


async def until_answered(replicas: Sequence[Services], *, look: Callable[[], object] = lambda: None) -> None:
    """Returns when every registry, trainer, gateway and engine host answers. `look` is called meanwhile."""
    start = time.monotonic()
    while not await _all_answer(replicas):
        assert time.monotonic() < start + ANSWER_SECONDS, f"no answer after {ANSWER_SECONDS:.0f} s"
        look()
        await asyncio.sleep(0.1)


async def _all_answer(replicas: Sequence[Services]) -> bool:
    connection = replicas[0].connection
    try:
        async with asyncio.timeout(5), aiohttp.ClientSession() as session:
            for replica in replicas:
                await replica.registry.datasets()
                await replica.trainer.jobs(at_most=1)
            for url, key in (
                (f"{connection.gateway}/v1/models", connection.api_key),
                (f"{connection.engine_host}/replicas", connection.service_token),
            ):
                async with session.get(url, headers={"authorization": f"Bearer {key}"}) as answer:
                    if answer.status != 200:
                        return False
    except (TuneloomError, aiohttp.ClientError, OSError, TimeoutError):
        return False
    return True
