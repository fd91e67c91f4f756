"""What the stores of registry and trainer cost at 100 and at 10,000 versions, aliases, models, builds and jobs.

`make bench NAME=store`: a minute. The larger databases also hold 1,000,000 events each, the smaller 10,000. Every use
is measured in turn on both; `peer` is the small size: nothing may cost more than twice as much at a hundred times the
size. SQLite on the disk of the temporary directory. The last line is one JSON object, in milliseconds.
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

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.stores.filled import EVENTS_PER_ITEM, HELD, MODEL, Stores, filled, manifest
from tuneloom_common.names import Reference

SMALL, LARGE = 100, 10_000
REPEATS = 200
CLAIMS = 40
PAGE = 50
GOAL = 2.0
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
    both: tuple[Stores, Stores], uses: dict[str, Use], repeats: int, found: dict[str, list[float]]
) -> None:
    """Adds [milliseconds at the small size, at the large] of each use: medians, each size in turn."""
    for name, use in uses.items():
        taken: tuple[list[float], list[float]] = ([], [])
        chance = random.Random(0)
        for _ in range(repeats):
            for stores, times in zip(both, taken, strict=True):
                began = time.perf_counter()
                answer = await use(stores, chance)
                times.append(1000 * (time.perf_counter() - began))
                if bool(answer) != (uses is not IDLE):
                    raise SystemExit(f"{name} at {stores.size}: unexpected answer {answer!r}")
        found[name] = [statistics.median(times) for times in taken]


async def run(directory: Path) -> dict[str, list[float]]:
    both = (await filled(SMALL, directory / "small"), await filled(LARGE, directory / "large"))
    found: dict[str, list[float]] = {}
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
        found = asyncio.run(run(Path(name)))
    print(f"{'medians':26}{f'at {SMALL}':>12}{f'at {LARGE:,}':>12}{'ratio':>9}")
    for use, (small, large) in found.items():
        over = " over the goal" if large / small > GOAL else ""
        print(f"{use:26}{small:9.2f} ms{large:9.2f} ms{large / small:9.2f}{over}")
    print(
        json.dumps(
            {
                "benchmark": "store",
                "ours": {use: round(large, 4) for use, (_, large) in found.items()},
                "peer": {use: round(small, 4) for use, (small, _) in found.items()},
                "ratio": {use: round(large / small, 3) for use, (small, large) in found.items()},
                "peer_is": f"the same at {SMALL}",
                "goal": GOAL,
                "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
            }
        )
    )


if __name__ == "__main__":
    main()
