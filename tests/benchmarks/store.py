"""What the stores of registry and trainer cost at 100 and at 10,000 versions, aliases, models, builds and jobs.

`make bench NAME=store`: minutes. The larger databases also hold 1,000,000 events each, the smaller 10,000. Every use
is measured in turn on both; `peer` is the small size: nothing may cost more than twice as much at a hundred times the
size. First SQLite on the disk of the temporary directory, then a private PostgreSQL where one is installed, which syncs
nothing to the disk here. Of each use's wall times the lower quartile is taken, because other work on the machine only
adds, and beside it the processor time of the client. The last line is one JSON object, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.stores.filled import EVENTS_PER_ITEM, HELD, MODEL, Stores, filled, manifest
from tests.databases.cluster import binaries, running_cluster
from tests.databases.kinds import Databases, Postgres, Sqlite
from tuneloom_common.names import Reference

SMALL, LARGE = 100, 10_000
REPEATS = 200
CLAIMS = 40
PAGE = 50
GOAL = 2.0


class Cost(NamedTuple):
    """Milliseconds."""

    wall: float
    cpu: float


Use = Callable[[Stores, random.Random], Awaitable[object]]


def _anywhere(stores: Stores, chance: random.Random) -> int:
    return chance.randint(1, stores.size)


def _resolve(form: Callable[[int], str]) -> Use:
    return lambda stores, chance: stores.versions.resolve(Reference.parse(form(_anywhere(stores, chance))))


def _job(stores: Stores, chance: random.Random) -> str:
    return f"job-{_anywhere(stores, chance) - 1:06}"


READS: dict[str, Use] = {
    "resolve name": _resolve(lambda _: "big"),
    "resolve alias": _resolve(lambda i: f"big@a-{i:06}"),
    "resolve number": _resolve(lambda i: f"big:{i}"),
    "resolve digest": _resolve(lambda i: f"big@sha256:{manifest(i).digest}"),
    "resolve engine name": _resolve(lambda i: f"big--{manifest(i).digest[:12]}"),
    "list versions": lambda s, c: s.versions.list_versions(MODEL, before=_before(s, c), limit=PAGE),
    "list collections": lambda s, c: s.versions.list_collections("models/", after=_after(s, c), limit=PAGE),
    "watch models": lambda s, c: s.versions.events_after(s.size * EVENTS_PER_ITEM - 5),
    "list builds": lambda s, c: s.builds.list_builds(before=_before(s, c), limit=PAGE),
    "get job": lambda s, c: s.jobs.get(_job(s, c)),
    "list jobs": lambda s, c: s.jobs.list_jobs(before=_before(s, c), limit=PAGE),
    "watch job": lambda s, c: s.jobs.events_after(_job(s, c), EVENTS_PER_ITEM - 5),
    "list checkpoints": lambda s, c: s.jobs.list_checkpoints(_job(s, c), before=0, limit=PAGE),
}
CLAIMING: dict[str, Use] = {
    "claim job": lambda s, c: s.queue.claim(),
    "claim build": lambda s, c: s.builds.claim(),
}
IDLE: dict[str, Use] = {
    "claim job, none waits": lambda s, c: s.queue.claim(),
    "claim build, none waits": lambda s, c: s.builds.claim(),
}


def _before(stores: Stores, chance: random.Random) -> int:
    return chance.randint(PAGE + 1, stores.size)


def _after(stores: Stores, chance: random.Random) -> str:
    return f"models/m-{chance.randint(0, stores.size - PAGE - 1):06}"


async def measure(
    both: tuple[Stores, Stores], uses: dict[str, Use], repeats: int, found: dict[str, list[Cost]]
) -> None:
    """Adds each use's cost at the small size and at the large, asked in turn."""
    for name, use in uses.items():
        taken: tuple[list[Cost], list[Cost]] = ([], [])
        chance = random.Random(0)
        for _ in range(repeats):
            for stores, costs in zip(both, taken, strict=True):
                began, used = time.perf_counter(), time.process_time()
                answer = await use(stores, chance)
                costs.append(Cost(1000 * (time.perf_counter() - began), 1000 * (time.process_time() - used)))
                if bool(answer) != (uses is not IDLE):
                    raise SystemExit(f"{name} at {stores.size}: unexpected answer {answer!r}")
        found[name] = [
            Cost(
                statistics.quantiles((cost.wall for cost in costs), n=4)[0],
                statistics.median(cost.cpu for cost in costs),
            )
            for costs in taken
        ]


async def run(databases: Databases) -> dict[str, list[Cost]]:
    both = (await filled(SMALL, databases), await filled(LARGE, databases))
    found: dict[str, list[Cost]] = {}
    for _ in range(2):  # the first time warms up
        await measure(both, READS, REPEATS, found)
    await measure(both, CLAIMING, CLAIMS, found)
    for stores in both:
        await _drain(stores)
    await measure(both, IDLE, REPEATS, found)
    for stores in both:
        await stores.close()
    return found


async def _drain(stores: Stores) -> None:
    """Ends everything that waits, as runners would have."""
    from sqlalchemy import text

    for database, table in zip(stores.databases, ("builds", "jobs"), strict=True):
        async with database.write() as db:
            ended = f"UPDATE {table} SET state = 'succeeded' WHERE sequence > {HELD}"
            await db.execute(text(ended))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="store-benchmark-") as name:
        results = {"sqlite": asyncio.run(run(Sqlite(Path(name), Path(name))))}
    if binaries() is not None:
        with running_cluster() as cluster:
            results["postgresql"] = asyncio.run(run(Postgres(cluster, {})))
    told = {}
    for kind, found in results.items():
        print(f"{f'{kind}, milliseconds':26}{f'at {SMALL}':>12}{f'at {LARGE:,}':>12}{'ratio':>9}{'ratio of CPU':>14}")
        ratios = {}
        for use, (small, large) in found.items():
            ratio = ratios[use] = Cost(large.wall / small.wall, large.cpu / small.cpu)
            over = " over the goal" if max(ratio) > GOAL else ""
            print(f"{use:26}{small.wall:12.2f}{large.wall:12.2f}{ratio.wall:9.2f}{ratio.cpu:14.2f}{over}")
        told[kind] = {
            "ours": {use: _told(large) for use, (_, large) in found.items()},
            "peer": {use: _told(small) for use, (small, _) in found.items()},
            "ratio": {use: _told(ratio) for use, ratio in ratios.items()},
        }
    print(
        json.dumps(
            {
                "benchmark": "store",
                **told["sqlite"],
                **({"postgresql": told["postgresql"]} if "postgresql" in told else {}),
                "peer_is": f"the same at {SMALL}",
                "goal": GOAL,
                "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
            }
        )
    )


def _told(cost: Cost) -> dict[str, float]:
    return {name: round(value, 4) for name, value in cost._asdict().items()}


if __name__ == "__main__":
    main()
