"""Several trainers on one database: runners, watchers and clients of different processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.trainer.conftest import LEASE_SECONDS, CreateJob
from tests.unit.trainer.fakes import Clock
from tuneloom_common.database import Database, open_database
from tuneloom_common.notifier import Notifier
from tuneloom_trainer.jobs import JobState
from tuneloom_trainer.store import JobQueue, JobStore
from tuneloom_trainer.store.jobs import NewJob
from tuneloom_trainer.store.rows import append
from tuneloom_trainer.training_events import Note

RUNNERS = 16
JOBS = 48
ROOT = Path(__file__).parents[3]


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """The same database in another process."""
    database = await open_database(database_url, migrations="tuneloom_trainer.migrations")
    yield database
    await database.dispose()


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_sixteen_runner_processes_never_run_a_job_twice(
    store: JobStore, create: CreateJob, database_url: str, tmp_path: Path
) -> None:
    created = {(await create()).id for _ in range(JOBS)}
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.databases.runners", database_url, str(RUNNERS), str(log)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in log.read_text().splitlines()]
    assert Counter(job for job, _, _ in lines) == Counter(created)
    assert {epoch for _, epoch, _ in lines} == {"1"}
    assert len({pid for _, _, pid in lines}) > 1
    assert {job.state for _, job in await store.list_jobs(before=0, limit=999)} == {JobState.SUCCEEDED}


async def test_a_watcher_never_misses_a_late_commit(
    store: JobStore, create: CreateJob, database: Database, other: Database, clock: Clock
) -> None:
    """One transaction has its number before the other and commits after it was tried."""
    job = await create()
    elsewhere = JobStore(other, clock=clock)
    seen: list[int] = []

    async def watch() -> None:
        while len(seen) < 3:
            seen.extend(event.sequence for event in await elsewhere.events_after(job.id, seen[-1] if seen else 0))
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    async with database.write() as slow:
        await append(slow, job.id, [Note(text="slow")], now=clock())
        quick = asyncio.create_task(elsewhere.request_pause(job.id))
        await asyncio.sleep(0.1)
        assert not quick.done()
        assert seen in ([], [1])
    async with asyncio.timeout(20):
        await quick
        await watching
    assert seen == [1, 2, 3]
    assert [event.body.kind for event in await store.events_after(job.id, 1)] == ["note", "state_changed"]


async def test_the_same_request_to_two_trainers_makes_one_job(
    store: JobStore, create: CreateJob, other: Database, clock: Clock
) -> None:
    template = await create()
    new = NewJob(
        base_model=template.base_model,
        base=template.base,
        dataset=template.dataset,
        output_model=template.output_model,
        recipe=template.recipe,
        spec=template.spec,
        merge=False,
        request_id="r",
    )
    elsewhere = JobStore(other, clock=clock)
    made = await asyncio.gather(*(one.create(new) for one in (store, elsewhere) * 6))
    assert len({job.id for job in made}) == 1
    assert [event.sequence for event in await store.events_after(made[0].id, 0)] == [1]


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_what_one_trainer_stores_wakes_runners_and_watchers_of_another(
    database: Database, other: Database, store: JobStore, create: CreateJob, clock: Clock
) -> None:
    elsewhere = Notifier()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(database.relayed(store.notifier))
        await stack.enter_async_context(other.relayed(elsewhere))
        runner = stack.enter_context(elsewhere.subscribe("trainingJobs"))
        async with asyncio.timeout(30):
            await runner.wait(60)  # it listens
            job = await create()
            await runner.wait(60)
            queue = JobQueue(
                other, lease=timedelta(seconds=LEASE_SECONDS), max_attempts=3, notifier=elsewhere, clock=clock
            )
            assert await queue.claim() is not None
            requests = stack.enter_context(elsewhere.subscribe(f"{job.name}/requests"))
            await store.request_cancel(job.id)
            await requests.wait(60)


async def test_texts_that_a_database_cannot_hold_end_a_job_all_the_same(
    store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    await create()
    job = await queue.claim()
    assert job is not None
    await queue.append_events(job, [Note(text="a\x00b\ud800")], worker_sequence=1)
    ended = await queue.finish(job, JobState.FAILED, error="killed by \x00 bytes", reason="WHY\x00" + 99 * "Y")
    assert ended.state is JobState.FAILED
    assert ended.error.startswith("killed by ")
    assert ended.error_reason.startswith("WHY")
    told = (await store.events_after(job.id, 2))[0].body
    assert isinstance(told, Note)
    assert told.text == "a\ufffdb\ufffd"
