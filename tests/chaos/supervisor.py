"""Keeps the services of a plan running, as `tuneloom up` keeps its own: `python -m tests.chaos.supervisor HOME`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tuneloom_cli.local.home import Home
from tuneloom_cli.local.offering import offer_base, warm
from tuneloom_cli.local.processes import Service, seed_directory
from tuneloom_cli.local.supervision import supervise

PLAN_FILE = "plan.json"


def write_plan(home: Home, services: Sequence[Service]) -> None:
    with os.fdopen(os.open(home.path / PLAN_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        json.dump([asdict(service) for service in services], output)


def read_plan(home: Home) -> list[Service]:
    return [Service(**fields) for fields in json.loads((home.path / PLAN_FILE).read_bytes())]


def main(home: Home) -> None:
    os.umask(0o077)
    connection = home.connection()

    async def offer(ready: Callable[[], object]) -> None:
        engine = await offer_base(connection, seed_directory(), "seed")
        ready()
        await warm(connection, engine)

    asyncio.run(supervise(home, read_plan(home), offer))


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])))
