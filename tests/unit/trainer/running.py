"""A trainer's runner at work, and what tests wait for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.trainer.fakes import FakeRegistry
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import Artifact, Job, JobState, StateChanged
from tuneloom_trainer.specs import load_recipes, resolve
from tuneloom_trainer.store.jobs import NewJob


@asynccontextmanager
async def running(app: TrainerApp) -> AsyncIterator[asyncio.Task[None]]:
    """The runner at work; shuts down as SIGTERM would."""
    task = asyncio.create_task(app.runner.run())
    try:
        yield task
    finally:
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(task, return_exceptions=True)


async def submit(app: TrainerApp, registry: FakeRegistry, *words: str, merge: bool = False, **more: Any) -> Job:
    """Queues a job whose worker does one word per attempt."""
    base, data = registry.references["seed"], registry.references["datasets/chats"]
    return await app.store.create(
        NewJob(
            base_model="seed",
            base=Artifact(base.name, base.digest),
            dataset=Artifact(data.name, data.digest),
            output_model="models/assistant",
            recipe="qlora",
            spec=resolve(load_recipes(), "qlora", {"sample_prompts": words}),
            merge=merge,
            **more,
        )
    )


async def until(app: TrainerApp, job: Job, holds: Callable[[Job], bool]) -> Job:
    """Waits for the job to become so."""
    with app.store.notifier.subscribe(job.name) as changes:
        async with asyncio.timeout(60):
            while not holds(found := await app.store.get(job.id)):
                await changes.wait(0.1)
    return found


async def until_state(app: TrainerApp, job: Job, state: JobState) -> Job:
    return await until(app, job, lambda found: found.state is state)


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what tells nobody when it comes true: files, processes, calls to a fake."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_checkpoint(app: TrainerApp, job: Job, step: int = 1) -> None:
    with app.store.notifier.subscribe(job.name) as changes:
        async with asyncio.timeout(60):
            while step not in [found.step for found in await app.store.list_checkpoints(job.id, before=0, limit=9)]:
                await changes.wait(0.1)


async def kinds(app: TrainerApp, job: Job) -> list[str]:
    """The events' kinds, states by their names."""
    events = await app.store.events_after(job.id, 0)
    return [event.body.state if isinstance(event.body, StateChanged) else event.body.kind for event in events]


def run_dir(tmp_path: Path, job: Job) -> Path:
    return tmp_path / "work" / "runs" / job.id


def is_clean(tmp_path: Path, job: Job) -> bool:
    return not {path.name for path in run_dir(tmp_path, job).iterdir()} & {"base", "data", "checkpoints"}


def worker_pid(tmp_path: Path, job: Job) -> int:
    return int((run_dir(tmp_path, job) / "pid").read_text())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
