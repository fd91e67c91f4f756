"""Faults of every kind on a cluster while real jobs train, convert and merge.

    python -m tests.chaos.campaign --faults 200 --seed 1     exits with 1 when anything was lost, doubled or damaged

The choice of faults is seeded; when exactly each falls is not. As root, with PostgreSQL and Ceph from Debian's
packages. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.blobs import in_bucket
from tests.chaos.cluster import BUCKET, PREFIX, Cluster, standing
from tests.chaos.faults import FAULTS, plan
from tests.chaos.kills import drained
from tests.chaos.load import Load
from tests.chaos.verdict import Verdict, examine
from tests.chaos.victims import sweep

RECOVERY_SECONDS = 30.0
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault, and how long after its end every service answered again."""

    fault: str
    what: str
    seconds: float


async def campaign(seed: int, names: list[str], jobs: int, directory: Path) -> bool:
    """Whether everything held."""
    start = time.monotonic()
    async with standing(directory) as cluster:
        await cluster.up()
        load = Load(cluster.services, directory, wanted=jobs, prefix="chaos")
        creating, chatting = asyncio.create_task(load.run()), asyncio.create_task(load.chat(every_seconds=4))
        striking = asyncio.create_task(strike(cluster, load, names, random.Random(seed + 1)))
        await asyncio.wait({striking, creating}, return_when=asyncio.FIRST_COMPLETED)
        if creating.done():
            creating.result()
        struck = striking.result() if striking.done() else await striking
        load.stop.set()
        chatting.cancel()
        await creating
        await drained(load)
        verdict = await examine(cluster.services, load.acknowledged, in_bucket(cluster.s3, BUCKET, PREFIX))
        left = await cluster.down()
        verdict.expect(not left, f"processes {left} are left")
    for each in struck:
        told = f"{each.fault} ({each.what}): answered again only after {each.seconds:.0f} s"
        verdict.expect(each.seconds <= RECOVERY_SECONDS, told)
    report(struck, verdict, load, seed=seed, minutes=(time.monotonic() - start) / 60)
    return not verdict.wrong


async def strike(cluster: Cluster, load: Load, names: list[str], chance: random.Random) -> list[Struck]:
    """One fault after the other; one that finds nothing to hit is put off, and at last replaced by another."""
    struck: list[Struck] = []
    missed: Counter[str] = Counter()
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        load.more.set()
        what = await FAULTS[name].strike(cluster, chance)
        if not what:
            missed[name] += 1
            again = name if missed[name] < PATIENCE else chance.choice(list(FAULTS))
            waiting.insert(chance.randint(0, len(waiting)), again)
            continue
        over = time.monotonic()
        await cluster.answered()
        struck.append(Struck(name, what, time.monotonic() - over))
        left = f"{len(struck)}/{len(names)}, {len(load.unfinished())} jobs unfinished"
        print(f"{time.strftime('%H:%M:%S')} {name} ({what}): {struck[-1].seconds:.1f} s; {left}", flush=True)
        await asyncio.sleep(chance.uniform(0.3, 3))
    return struck


def report(struck: list[Struck], verdict: Verdict, load: Load, *, seed: int, minutes: float) -> None:
    """The table, what is wrong, and the JSON object."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for each in struck:
        seconds[each.fault].append(each.seconds)
    print("\n| fault | times | answered again after, s: median | worst |\n|---|---|---|---|")
    for name in FAULTS:
        if took := sorted(seconds[name]):
            print(f"| {name} | {len(took)} | {took[len(took) // 2]:.1f} | {took[-1]:.1f} |")
    print(f"\ncreations that were repeated: {sum(load.refused.values())}; chats: {dict(load.chats)}")
    for error, times in load.refused.most_common():
        print(f"  {times} x {error}")
    for sentence in verdict.wrong:
        print(f"WRONG: {sentence}")
    values = {"seed": seed, "faults": len(struck), "minutes": round(minutes, 1), **asdict(verdict)}
    print(
        json.dumps({**values, "worst_seconds": {name: round(max(took), 1) for name, took in seconds.items() if took}})
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--faults", type=int, default=200)
    options.add_argument("--jobs", type=int, default=3, help="unfinished jobs at any time")
    options.add_argument("--only", action="append", choices=list(FAULTS), default=[], help="faults of these kinds")
    options.add_argument("--keep", action="store_true", help="leave the files there, to look at what is wrong")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and with it the cluster
    directory = Path(tempfile.mkdtemp(prefix="tuneloom-chaos-"))
    print(f"in {directory}", flush=True)
    names, held = plan(chosen.seed, chosen.faults, chosen.only), False
    try:
        held = asyncio.run(campaign(chosen.seed, names, chosen.jobs, directory))
    finally:
        sweep(directory / "home")
        if held and not chosen.keep:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
