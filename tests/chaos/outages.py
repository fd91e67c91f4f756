"""A part that jobs need is away for a minute; each job still succeeds, and no step is trained twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.blobs import in_directory
from tests.chaos.installation import Ground
from tests.chaos.load import SAVE_STEPS, STEPS, Load
from tests.chaos.verdict import examine, trained_again
from tests.chaos.victims import Kind, victims
from tuneloom_cli.clients import Services, connect
from tuneloom_client.jobs import Checkpoint, JobState, Progress

END_SECONDS = 300.0


@contextmanager
def registry_stopped(home: Path) -> Iterator[None]:
    """SIGSTOP: connections stay open and nothing answers."""
    (registry,) = [each for each in victims(home) if each.kind is Kind.REGISTRY]
    os.kill(registry.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(registry.pid, signal.SIGCONT)


@contextmanager
def store_away(home: Path) -> Iterator[None]:
    """The disk is not mounted: its mount point is there, and empty. Nobody may have written to it."""
    objects, away = home / "objects", home / "objects.away"
    objects.rename(away)
    objects.mkdir()
    try:
        yield
    finally:
        written = sorted(path.relative_to(objects) for path in objects.rglob("*"))
        assert not written, f"written to the mount point: {written}"
        objects.rmdir()
        away.rename(objects)


@contextmanager
def database_locked(home: Path) -> Iterator[None]:
    """Another process's write lock on the trainer's database."""
    with closing(sqlite3.connect(home / "trainer.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


OUTAGES = {"registry stopped": registry_stopped, "store away": store_away, "database locked": database_locked}
MOMENTS = {"in training": SAVE_STEPS + 1, "after the last step": STEPS}


@dataclass(frozen=True, slots=True)
class Result:
    outage: str
    moment: str
    state: str
    attempts: int
    steps_again: int
    seconds_after: float
    error: str = ""


async def outages(seconds: float, directory: Path) -> bool:
    """Whether every job succeeded without training a registered step again."""
    ground, results = Ground.prepare(directory), []
    await ground.up()
    async with connect(ground.installation.connection) as services:
        ground.services = services
        load = Load(services, directory, wanted=0, prefix="outage")
        for moment, step in MOMENTS.items():
            for name in OUTAGES:
                results.append(await _one(ground, load, name, moment, step, seconds))
                print(results[-1], flush=True)
        verdict = await examine(services, load.acknowledged, in_directory(ground.home / "objects"))
    left = await ground.down()
    verdict.expect(not left, f"processes {left} are left")
    print("\n| away for a minute | when | the job | attempts | steps trained again | done after the outage, s |")
    print("|---|---|---|---|---|---|")
    for each in results:
        print(
            f"| {each.outage} | {each.moment} | {each.state} | {each.attempts} | {each.steps_again} "
            f"| {each.seconds_after:.1f} |"
        )
    for sentence in [*verdict.wrong, *(each.error for each in results if each.error)]:
        print(f"WRONG: {sentence}")
    print(json.dumps({"seconds": seconds, "outages": [asdict(each) for each in results], **asdict(verdict)}))
    return not verdict.wrong


async def _one(ground: Ground, load: Load, name: str, moment: str, step: int, seconds: float) -> Result:
    services = ground.services
    job = (await load.create()).job
    await _reached(services, job, step)
    print(f"{time.strftime('%H:%M:%S')} {name} {moment} of {job}", flush=True)
    with OUTAGES[name](ground.home):
        await asyncio.sleep(seconds)
    over = time.monotonic()
    ended = await services.trainer.job(job)
    while not ended.state.final and time.monotonic() < over + END_SECONDS:
        await asyncio.sleep(0.5)
        ended = await services.trainer.job(job)
    after = time.monotonic() - over
    events = [event async for event in services.trainer.watch(job)] if ended.state.final else []
    again = len(trained_again(events))
    error = "" if ended.state is JobState.SUCCEEDED else f"{name} {moment}: {ended.state}: {ended.error[:500]}"
    return Result(name, moment, ended.state, ended.attempt, again, after, error)


async def _reached(services: Services, job: str, step: int) -> None:
    """Returns when a job has reported a step, or has ended."""
    async for event in services.trainer.watch(job):
        if isinstance(event.happening, Progress | Checkpoint) and event.happening.step >= step:
            return
