"""What a worker tells another trainer, in both kinds of database."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.unit.trainer.conftest import CreateJob
from tuneloom_common.database import Database
from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_common.notifier import Notifier
from tuneloom_common.queue import Lease, Retry
from tuneloom_trainer.jobs import Job
from tuneloom_trainer.store import JobQueue, JobStore, Reports

LINES = [(1, "one"), (2, "two"), (3, "three")]


@pytest.fixture
def there(database: Database, store: JobStore) -> Reports:
    """Of the trainer that runs the attempt."""
    return Reports(database, notifier=store.notifier)


@pytest.fixture
def here(database: Database) -> Reports:
    """Of another one, which hears nothing of the first but by the database."""
    return Reports(database, notifier=Notifier(), heard_seconds=0.05)


@pytest.fixture
async def job(queue: JobQueue, create: CreateJob) -> Job:
    await create()
    job = await queue.claim()
    assert job is not None
    return job


async def waiting(there: Reports, job: Job, count: int) -> None:
    while len(await there.told(job.lease, after=0)) < count:  # noqa: ASYNC110 - a row has no event
        await asyncio.sleep(0)


async def test_a_report_is_answered_when_it_is_stored(here: Reports, there: Reports, queue: JobQueue, job: Job) -> None:
    await there.admit(job.lease, "token")
    here._heard_seconds = 30
    telling = asyncio.create_task(here.tell(job.lease, LINES[:2]))
    await waiting(there, job, 2)
    assert not telling.done()
    await queue.append_events(job, [], worker_sequence=2)
    assert await telling == 2
    assert await here.tell(job.lease, LINES[:2]) == 2  # sent again after a lost answer
    assert await there.told(job.lease, after=2) == []


async def test_what_nobody_takes_in_waits_and_is_not_stored_twice(here: Reports, there: Reports, job: Job) -> None:
    await there.admit(job.lease, "token")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await here.tell(job.lease, LINES[:2])
    with pytest.raises(Unavailable):
        await here.tell(job.lease, LINES)
    assert await there.told(job.lease, after=0) == LINES
    assert await there.told(job.lease, after=1) == LINES[1:]
    with pytest.raises(FailedPrecondition, match="event 4 is missing"):
        await here.tell(job.lease, [(5, "five")])


@pytest.mark.parametrize(("count", "size"), [(1000, 1), (2, 8 << 20)])
async def test_what_waits_has_a_bound(here: Reports, there: Reports, job: Job, count: int, size: int) -> None:
    await there.admit(job.lease, "token")
    full = [(sequence, "x" * size) for sequence in range(1, count + 1)]
    with pytest.raises(Unavailable, match="does not take in"):
        await here.tell(job.lease, full)
    with pytest.raises(Unavailable, match="waits already"):
        await here.tell(job.lease, [(count + 1, "x")])
    assert await there.told(job.lease, after=0) == full


async def test_what_waits_is_read_in_parts(here: Reports, there: Reports, job: Job) -> None:
    await there.admit(job.lease, "token")
    backlog = [(sequence, "x") for sequence in range(1, 1502)]  # one report is taken whole where nothing waits
    with pytest.raises(Unavailable, match="does not take in"):
        await here.tell(job.lease, backlog)
    assert await there.told(job.lease, after=0) == backlog[:1000]
    assert await there.told(job.lease, after=1000) == backlog[1000:]


async def test_two_reports_at_once_are_stored_once(here: Reports, there: Reports, queue: JobQueue, job: Job) -> None:
    await there.admit(job.lease, "token")
    here._heard_seconds = 30
    telling = [asyncio.create_task(here.tell(job.lease, LINES)) for _ in range(4)]
    await waiting(there, job, 3)
    await queue.append_events(job, [], worker_sequence=3)
    assert await asyncio.gather(*telling) == [3] * 4


async def test_only_the_newest_attempt_is_heard(here: Reports, there: Reports, queue: JobQueue, job: Job) -> None:
    hashed = hashlib.sha256(b"token").digest()
    for stranger in (job.lease, Lease("job-nobody", 1)):
        with pytest.raises(FailedPrecondition, match="end the worker"):
            await here.goes_on_from(stranger)
    await there.admit(job.lease, "token", goes_on_from={"a" * 64})
    assert await here.lease_of(hashed) == job.lease
    assert await here.goes_on_from(job.lease) == {"a" * 64}
    await queue.put_back(job, Retry.STOPPED, "")
    with pytest.raises(FailedPrecondition, match="end the worker"):
        await here.tell(job.lease, LINES)
    again = await queue.claim()
    assert again is not None
    await there.admit(again.lease, "another")
    assert await here.lease_of(hashed) is None
    await there.withdraw(job.lease)  # late, and none of its business any more
    await here.goes_on_from(again.lease)
    await there.withdraw(again.lease)
    with pytest.raises(FailedPrecondition, match="end the worker"):
        await here.goes_on_from(again.lease)
