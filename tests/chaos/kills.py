"""kill -9 of random processes of a whole installation while real jobs train, convert and merge.

    python -m tests.chaos.kills --kills 100 --seed 1     exits with 1 when anything was lost, doubled or damaged
    python -m tests.chaos.kills --outage                 registry, object store and database away for 60 s instead

The choice of kinds and phases is seeded; when exactly each falls is not, as the processes run at their own pace.
The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.blobs import in_directory
from tests.chaos.installation import Ground
from tests.chaos.load import Load
from tests.chaos.verdict import Verdict, examine
from tests.chaos.victims import Kind, Phase, Victim, sweep, victims
from tuneloom_cli.clients import connect

WEIGHTS: dict[tuple[Kind, Phase], int] = {
    **{(kind, phase): 4 for kind in (Kind.REGISTRY, Kind.TRAINER) for phase in Phase},
    **{(kind, phase): 1 for kind in (Kind.GATEWAY, Kind.ENGINE, Kind.VLLM, Kind.UP) for phase in Phase},
    (Kind.WORKER, Phase.TRAIN): 10,
    (Kind.TRANSFORM, Phase.CONVERT): 8,
    (Kind.TRANSFORM, Phase.MERGE): 10,
    (Kind.CHECK, Phase.CREATE): 6,
}
AIM_SECONDS = 25.0
LOOK_SECONDS = 0.03
DRAIN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Hit:
    """One kill, and how long the services took to answer again."""

    kind: Kind
    phase: Phase
    seconds: float


def plan(seed: int, kills: int) -> list[tuple[Kind, Phase]]:
    """Every pair once, in random order, the rest by weight."""
    chance = random.Random(seed)
    pairs = list(WEIGHTS)
    drawn = chance.choices(pairs, weights=list(WEIGHTS.values()), k=max(0, kills - len(pairs)))
    aims = [*pairs, *drawn]
    chance.shuffle(aims)
    return aims[:kills]


Aim = tuple[Kind, Phase]


class Hunt:
    """Waits for a phase that one of the aims names, then kills a process of its kind."""

    def __init__(self, ground: Ground, load: Load, chance: random.Random) -> None:
        self._ground = ground
        self._load = load
        self._chance = chance
        self.hits: list[Hit] = []

    async def run(self, aims: list[Aim]) -> None:
        total = len(aims)
        while aims:
            aim, victim, phase = await self._find(aims)
            await asyncio.sleep(self._chance.random() * (0.05 if victim.kind is Kind.CHECK else 0.5))
            if not victim.kill():  # it ended by itself
                continue
            aims.remove(aim)
            await self._recovered(victim, phase)
            left = f"{total - len(aims)}/{total}, {len(self._load.unfinished())} jobs unfinished"
            print(f"{time.strftime('%H:%M:%S')} killed {victim.kind} in {phase}: {self.hits[-1].seconds:.1f} s; {left}")
            await asyncio.sleep(self._chance.uniform(0.3, 4))

    async def _recovered(self, victim: Victim, phase: Phase) -> None:
        """Returns when the services answer again."""
        killed = time.monotonic()
        if victim.kind is Kind.UP:
            left = await self._ground.gone()
            assert not left, f"these outlived 'up': {left}"
            await self._ground.up()
        await self._ground.answered()
        self.hits.append(Hit(victim.kind, phase, time.monotonic() - killed))

    async def _find(self, aims: list[Aim]) -> tuple[Aim, Victim, Phase]:
        """A process that one of the aims is about, and that aim; after AIM_SECONDS anybody in any phase."""
        deadline = time.monotonic() + AIM_SECONDS
        while True:
            now = victims(self._ground.home)
            phases = self._phases(now)
            possible = [
                (aim, victim, aim[1])
                for aim in aims
                for victim in now
                if aim[0] is victim.kind and aim[1] in phases and victim.phase in (None, aim[1])
            ]
            # A check is over in a moment; the others will be there again.
            if possible := [each for each in possible if each[1].kind is Kind.CHECK] or possible:
                return self._chance.choice(possible)
            if time.monotonic() > deadline and now and phases:
                victim = self._chance.choice([each for each in now if each.kind is not Kind.UP] or now)
                return self._chance.choice(aims), victim, victim.phase or self._chance.choice(sorted(phases))
            self._load.more.set()
            await asyncio.sleep(LOOK_SECONDS)

    def _phases(self, now: list[Victim]) -> set[Phase]:
        children = {each.phase for each in now if each.phase is not None}
        return children | ({Phase.CREATE} if self._load.creating else set())


async def kills(seed: int, count: int, jobs: int, directory: Path) -> bool:
    """Whether everything held."""
    ground, start = Ground.prepare(directory), time.monotonic()
    await ground.up()
    async with connect(ground.installation.connection) as services:
        ground.services = services
        load = Load(services, directory, wanted=jobs, prefix="chaos")
        creating, chatting = asyncio.create_task(load.run()), asyncio.create_task(load.chat(every_seconds=4))
        hunt = Hunt(ground, load, random.Random(seed + 1))
        hunting = asyncio.create_task(hunt.run(plan(seed, count)))
        await asyncio.wait({hunting, creating}, return_when=asyncio.FIRST_COMPLETED)
        if creating.done():
            creating.result()
        hunting.result()
        load.stop.set()
        chatting.cancel()
        await creating
        await drained(load)
        verdict = await examine(services, load.acknowledged, in_directory(ground.home / "objects"))
    left = await ground.down()
    verdict.expect(not left, f"processes {left} are left")
    report(hunt.hits, verdict, load, seed=seed, minutes=(time.monotonic() - start) / 60)
    return not verdict.wrong


async def drained(load: Load) -> None:
    """Waits for every job's end, or long enough."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while load.unfinished() and time.monotonic() < deadline:
        await asyncio.sleep(1)
        await load.look()


def report(hits: list[Hit], verdict: Verdict, load: Load, *, seed: int, minutes: float) -> None:
    """The table, what is wrong, and the JSON object."""
    seconds: dict[Kind, list[float]] = defaultdict(list)
    for hit in hits:
        seconds[hit.kind].append(hit.seconds)
    phases = Counter((hit.kind, hit.phase) for hit in hits)
    print(f"\n| killed | {' | '.join(Phase)} | all | answered again after, s: median | worst |")
    print("|---|" + "---|" * (len(Phase) + 3))
    for kind in Kind:
        row = [phases[kind, phase] for phase in Phase]
        took = sorted(seconds.get(kind, [0.0]))
        cells = " | ".join(str(number or "") for number in row)
        print(f"| {kind} | {cells} | {sum(row)} | {took[len(took) // 2]:.1f} | {took[-1]:.1f} |")
    print(f"\ncreations that were repeated: {sum(load.refused.values())}; chats: {dict(load.chats)}")
    for error, times in load.refused.most_common():
        print(f"  {times} x {error}")
    for sentence in verdict.wrong:
        print(f"WRONG: {sentence}")
    values = {
        "seed": seed,
        "kills": len(hits),
        "minutes": round(minutes, 1),
        **asdict(verdict),
        "killed": {str(kind): len(took) for kind, took in seconds.items()},
        "worst_seconds": {str(kind): round(max(took), 1) for kind, took in seconds.items()},
    }
    print(json.dumps(values))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--jobs", type=int, default=3, help="unfinished jobs at any time")
    options.add_argument("--outage", action="store_true")
    options.add_argument("--seconds", type=float, default=60, help="how long an outage lasts")
    options.add_argument("--keep", action="store_true", help="leave the home there, to look at what is wrong")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and with it the installation
    directory = Path(tempfile.mkdtemp(prefix="tuneloom-chaos-"))
    print(f"in {directory}", flush=True)
    try:
        held = asyncio.run(_chosen(chosen, directory))
    finally:
        sweep(directory / "home")
    if held and not chosen.keep:
        import shutil

        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if held else 1)


def _chosen(options: argparse.Namespace, directory: Path) -> Coroutine[Any, Any, bool]:
    if options.outage:
        from tests.chaos.outages import outages

        return outages(options.seconds, directory)
    return kills(options.seed, options.kills, options.jobs, directory)


if __name__ == "__main__":
    main()
