"""What can happen to a cluster. Each fault strikes, lasts, and is over when its coroutine returns."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.backends import filled
from tests.chaos.cluster import Cluster
from tests.chaos.victims import Kind, Victim, victims

FROZEN_SECONDS = 14.0
"""Longer than the leases of jobs and builds: somebody else takes them over meanwhile."""
CUT_SECONDS = 30.0
FULL_SECONDS = 15.0
AIM_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` returns what was hit, in words, or "" when there was nothing to hit. `weight` is its share."""

    weight: int
    strike: Callable[[Cluster, random.Random], Awaitable[str]]


def kill(kind: Kind) -> Callable[[Cluster, random.Random], Awaitable[str]]:
    async def strike(cluster: Cluster, chance: random.Random) -> str:
        victim = await _found(cluster, chance, kind)
        if victim is None or not victim.kill():
            return ""
        if kind is Kind.UP:
            left = await cluster.gone()
            assert not left, f"these outlived the supervisor: {left}"
            await cluster.up()
        return str(victim.pid)

    return strike


def freeze(kind: Kind) -> Callable[[Cluster, random.Random], Awaitable[str]]:
    """SIGSTOP: its connections stay open, its leases run out, and it goes on as if nothing had been."""

    async def strike(cluster: Cluster, chance: random.Random) -> str:
        victim = await _found(cluster, chance, kind)
        if victim is None:
            return ""
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGSTOP)
            await asyncio.sleep(FROZEN_SECONDS)
            os.kill(victim.pid, signal.SIGCONT)
        return str(victim.pid)

    return strike


async def kill_postgres_backends(cluster: Cluster, chance: random.Random) -> str:
    with cluster.postgres.admin() as admin:
        row = admin.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
    return f"{row[0]} backends" if row else ""


async def kill_postgres(cluster: Cluster, chance: random.Random) -> str:
    """As a crash: everything in memory is lost, the next start recovers."""
    await asyncio.to_thread(cluster.postgres.stop)
    await asyncio.sleep(chance.uniform(0, 5))
    await asyncio.to_thread(cluster.postgres.start)
    return "the server"


async def kill_s3(cluster: Cluster, chance: random.Random) -> str:
    await asyncio.to_thread(cluster.objects.kill)
    return "the server"


async def fill_disk(cluster: Cluster, chance: random.Random) -> str:
    async with filled(cluster.disk):
        await asyncio.sleep(FULL_SECONDS)
    return str(cluster.disk.name)


async def cut(cluster: Cluster, chance: random.Random) -> str:
    wire = chance.choice(cluster.wires)
    async with wire.cut():
        await asyncio.sleep(CUT_SECONDS)
    return wire.name


FAULTS: Mapping[str, Fault] = {
    **{
        f"kill {kind}": Fault(weight, kill(kind))
        for kind, weight in {
            Kind.REGISTRY: 10, Kind.TRAINER: 10, Kind.WORKER: 8, Kind.TRANSFORM: 8, Kind.CHECK: 2, Kind.GATEWAY: 2,
            Kind.ENGINE: 2, Kind.VLLM: 2, Kind.UP: 2,
        }.items()
    },
    "kill PostgreSQL's backends": Fault(10, kill_postgres_backends),
    "kill PostgreSQL": Fault(7, kill_postgres),
    "kill the S3 server": Fault(7, kill_s3),
    **{f"freeze {kind}": Fault(5, freeze(kind)) for kind in (Kind.REGISTRY, Kind.TRAINER, Kind.WORKER)},
    "fill the disk": Fault(5, fill_disk),
    "cut a connection": Fault(10, cut),
}  # fmt: skip


def plan(seed: int, count: int, only: Collection[str] = ()) -> list[str]:
    """Every fault once, in random order, the rest by weight."""
    chance = random.Random(seed)
    names = [name for name in FAULTS if name in only or not only]
    weights = [FAULTS[name].weight for name in names]
    drawn = [*names, *chance.choices(names, weights=weights, k=max(0, count - len(names)))][:count]
    chance.shuffle(drawn)
    return drawn


async def _found(cluster: Cluster, chance: random.Random, kind: Kind) -> Victim | None:
    """A process of a kind, waited for a while."""
    end = time.monotonic() + AIM_SECONDS
    while time.monotonic() < end:
        if running := [each for each in victims(cluster.home.path) if each.kind is kind]:
            return chance.choice(running)
        await asyncio.sleep(0.01)
    return None
