"""The store: one job per request, one runner per job, one gapless stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.unit.trainer.conftest import LEASE_SECONDS, CreateJob
from tests.unit.trainer.fakes import Clock
from tuneloom_common.database import Database, open_database
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_common.notifier import Notifier
from tuneloom_common.queue import LeaseLost, Retry
from tuneloom_trainer.jobs import Checkpoint, Job, JobState, LogTail
from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.store import JobQueue, JobStore
from tuneloom_trainer.store.rows import QUEUED
from tuneloom_trainer.tables import job_events, job_logs, jobs
from tuneloom_trainer.training_events import DataReport, Note, Progress

PROGRESS = Progress(step=1, loss=2.0)


async def claimed(queue: JobQueue) -> Job:
    job = await queue.claim()
    assert job is not None
    return job


def checkpoint(job: Job, step: int, version: str = "v") -> Checkpoint:
    return Checkpoint(job.id, step, version, 1.0, job.create_time)


async def test_the_same_request_id_gives_the_same_job(store: JobStore, create: CreateJob) -> None:
    asked = {"output_model": "models/assistant", "spec.seed": 7}
    first = await create(request_id="r1", request=asked)
    again = await create(request_id="r1", request=asked)
    other = await create(request_id="r2", request=asked)
    free = [await create(), await create()]

    assert again == first
    assert len({job.id for job in (first, other, *free)}) == 4
    assert len(await store.events_after(first.id, 0)) == 1


@pytest.mark.parametrize(
    ("asked", "difference"),
    [
        ({"output_model": "models/other"}, "output_model 'models/assistant', not 'models/other'"),
        ({"output_model": "models/assistant", "spec.seed": 8}, "spec.seed unset, not 8"),
        ({}, "output_model 'models/assistant', not unset"),
    ],
)
async def test_another_request_under_a_used_id_names_the_difference(
    store: JobStore, create: CreateJob, asked: dict[str, Any], difference: str
) -> None:
    made = await create(request_id="r1", request={"output_model": "models/assistant"})
    for call in (create(request_id="r1", request=asked), store.made_by("r1", asked)):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert difference in caught.value.message
        assert made.name in caught.value.message
    assert len(await store.list_jobs(before=0, limit=9)) == 1


async def test_a_job_whose_request_was_not_kept_answers_every_retry(store: JobStore, create: CreateJob) -> None:
    """As those of 0.1.0."""
    made = await create(request_id="r1")
    assert await store.made_by("r1", {"output_model": "models/assistant"}) == made
    assert await store.made_by("", {}) is None


async def test_the_same_request_id_at_the_same_time_gives_one_job(store: JobStore, create: CreateJob) -> None:
    made = await asyncio.gather(*(create(request_id="r1") for _ in range(8)))

    assert len({job.id for job in made}) == 1
    assert len(await store.list_jobs(before=0, limit=10)) == 1


async def test_jobs_come_newest_first_in_pages(store: JobStore, create: CreateJob) -> None:
    ids = [(await create()).id for _ in range(5)]

    first = await store.list_jobs(before=0, limit=2)
    second = await store.list_jobs(before=first[-1][0], limit=2)
    third = await store.list_jobs(before=second[-1][0], limit=2)

    assert [job.id for _, job in (*first, *second, *third)] == ids[::-1]
    assert await store.list_jobs(before=third[-1][0], limit=2) == []


async def test_what_does_not_exist_is_not_found(store: JobStore) -> None:
    for call in (store.get, store.request_cancel, store.request_pause, store.resume):
        with pytest.raises(NotFound, match="trainingJobs/none"):
            await call("none")
    with pytest.raises(NotFound):
        await store.list_checkpoints("none", before=0, limit=1)


async def test_the_oldest_job_is_claimed_first(store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    ids = [(await create()).id for _ in range(3)]

    jobs = [await claimed(queue) for _ in ids]

    assert [job.id for job in jobs] == ids
    assert {(job.state, job.lease_epoch) for job in jobs} == {(JobState.VALIDATING, 1)}
    assert await queue.claim() is None


async def test_two_runners_at_once_never_get_the_same_job(
    queue: JobQueue, create: CreateJob, clock: Clock, database_url: str
) -> None:
    other_engine = await open_database(database_url, migrations="tuneloom_trainer.migrations")
    other = JobQueue(
        other_engine, lease=timedelta(seconds=LEASE_SECONDS), max_attempts=3, notifier=Notifier(), clock=clock
    )
    await create()

    got = await asyncio.gather(*(runner.claim() for runner in (queue, other) * 3))

    assert len([job for job in got if job is not None]) == 1
    await other_engine.dispose()


async def test_a_lease_that_ran_out_is_claimed_again_with_the_next_epoch(
    store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock
) -> None:
    await create()
    first = await claimed(queue)
    await queue.enter_running(first)
    clock.advance(LEASE_SECONDS)
    assert await queue.claim() is None

    clock.advance(0.001)
    second = await claimed(queue)

    assert second.id == first.id
    assert (second.state, second.lease_epoch) == (JobState.VALIDATING, 2)
    states = [event.body.state for event in await store.events_after(first.id, 0)]  # type: ignore[attr-defined]
    assert states == ["queued", "validating", "running", "queued", "validating"]


async def test_a_heartbeat_keeps_the_lease(store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock) -> None:
    await create()
    job = await claimed(queue)
    for _ in range(3):
        clock.advance(LEASE_SECONDS - 1)
        assert await queue.heartbeat(job) is JobState.VALIDATING
        assert await queue.claim() is None


@pytest.mark.parametrize(
    ("ask", "waiting", "state"),
    [("request_cancel", JobState.CANCELLING, JobState.CANCELLED), ("request_pause", JobState.PAUSING, JobState.PAUSED)],
)
async def test_a_request_outlives_the_runner_that_was_to_observe_it(
    store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock, ask: str, waiting: JobState, state: JobState
) -> None:
    job_id = (await create()).id
    first = await claimed(queue)
    assert (await getattr(store, ask)(job_id)).state is waiting
    assert await queue.heartbeat(first) is waiting
    clock.advance(LEASE_SECONDS + 1)

    second = await claimed(queue)

    assert (second.id, second.state, second.lease_epoch) == (job_id, waiting, 2)
    await queue.put_back(second, Retry.STOPPED, "")  # a runner that shuts down at once still does what was asked
    assert (await store.get(job_id)).state is state


WRITES: dict[str, Callable[[JobQueue, Job], Awaitable[Any]]] = {
    "heartbeat": lambda queue, job: queue.heartbeat(job),
    "append_events": lambda queue, job: queue.append_events(job, [PROGRESS], worker_sequence=9),
    "append_nothing": lambda queue, job: queue.append_events(job, [], worker_sequence=9),
    "enter_running": lambda queue, job: queue.enter_running(job),
    "add_checkpoint": lambda queue, job: queue.add_checkpoint(job, checkpoint(job, 1)),
    "set_result": lambda queue, job: queue.set_result(job, "v"),
    "set_merged": lambda queue, job: queue.set_merged(job, "v"),
    "put_back": lambda queue, job: queue.put_back(job, Retry.STOPPED, "x"),
    **{
        f"finish_{state}": lambda queue, job, state=state: queue.finish(job, state, error="x")  # type: ignore[misc]
        for state in JobState
    },
}


async def test_an_old_epoch_writes_nothing(store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock) -> None:
    await create()
    old = await claimed(queue)
    clock.advance(LEASE_SECONDS + 1)
    new = await claimed(queue)
    events = await store.events_after(new.id, 0)

    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            await write(queue, old)

        assert await store.get(new.id) == new, name
    assert await store.events_after(new.id, 0) == events
    assert await store.list_checkpoints(new.id, before=0, limit=9) == []


async def test_a_job_that_ended_is_written_to_no_more(store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    await create()
    job = await claimed(queue)
    await queue.finish(job, JobState.FAILED, error="broken", reason="WHY")
    ended = await store.get(job.id)

    for write in WRITES.values():
        with pytest.raises(LeaseLost):
            await write(queue, job)

    assert await store.get(job.id) == ended
    assert (ended.error, ended.error_reason) == ("broken", "WHY")
    assert ended.end_time is not None


async def test_events_are_numbered_from_one_without_gaps_whoever_writes(
    store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    job_id = (await create()).id
    job = await claimed(queue)
    await queue.enter_running(job)

    async def tell() -> None:
        for n in range(1, 9):
            await queue.append_events(job, [PROGRESS, Note(text="x")], worker_sequence=2 * n)

    await asyncio.gather(tell(), store.request_pause(job_id))
    await queue.finish(job, JobState.PAUSED)
    await store.resume(job_id)

    events = await store.events_after(job_id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(events) == 3 + 16 + 3
    assert await store.events_after(job_id, 20) == events[20:]
    assert await store.events_after(job_id, 4, limit=3) == events[4:7]


async def test_progress_and_position_are_stored_together(store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    await create()
    job = await claimed(queue)

    await queue.append_events(job, [PROGRESS, Progress(step=2, loss=1.0)], worker_sequence=41)
    await queue.append_events(job, [Note(text="x")], worker_sequence=42)

    found = await store.get(job.id)
    assert found.progress == Progress(step=2, loss=1.0)
    assert found.worker_sequence == 42


async def test_what_is_repeated_because_its_answer_was_lost_is_told_once(
    store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    await create()
    job = await claimed(queue)
    writes: list[Callable[[], Awaitable[None]]] = [
        lambda: queue.append_events(job, [PROGRESS, Note(text="x")], worker_sequence=2),
        lambda: queue.add_checkpoint(job, checkpoint(job, 10, "a")),
        lambda: queue.set_result(job, "models/assistant/versions/1"),
        lambda: queue.set_merged(job, "models/assistant/versions/2"),
    ]
    for write in writes:
        await write()
    told = await store.events_after(job.id, 0)

    for write in writes:
        await write()

    assert await store.events_after(job.id, 0) == told
    found = await store.get(job.id)
    assert (found.result_version, found.merged_version) == (
        "models/assistant/versions/1",
        "models/assistant/versions/2",
    )


async def test_a_last_word_with_a_null_byte_ends_a_job(store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    await create()
    job = await claimed(queue)
    await queue.finish(job, JobState.FAILED, error="its last words:\x00 \ud800", reason="WHY")
    assert (await store.get(job.id)).error == "its last words:\ufffd \ufffd"


async def test_checkpoints_come_newest_first_and_a_step_has_one(
    store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    await create()
    job = await claimed(queue)
    for step, version in ((10, "a"), (20, "b"), (30, "c"), (20, "b2")):
        await queue.add_checkpoint(job, checkpoint(job, step, version))

    first = await store.list_checkpoints(job.id, before=0, limit=2)

    assert [(found.step, found.version) for found in first] == [(30, "c"), (20, "b2")]
    assert [found.step for found in await store.list_checkpoints(job.id, before=20, limit=2)] == [10]


async def test_a_caller_that_is_cancelled_leaves_the_database_free(store: JobStore, create: CreateJob) -> None:
    """A client that hangs up, a runner that shuts down: at any moment of a transaction."""
    job = await create()
    for turns in range(40):
        caller = asyncio.create_task(store.request_pause(job.id) if turns % 2 else store.resume(job.id))
        for _ in range(turns):
            await asyncio.sleep(0.0001 * (turns % 3))
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

        async with asyncio.timeout(5):
            await create()

    events = await store.events_after(job.id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_watchers_of_a_job_are_told_of_its_changes_and_of_no_other(
    store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    await create()
    job = await claimed(queue)
    changes: list[Callable[[], Awaitable[Any]]] = [
        lambda: queue.enter_running(job),
        lambda: queue.append_events(job, [PROGRESS], worker_sequence=1),
        lambda: store.request_pause(job.id),
        lambda: queue.finish(job, JobState.PAUSED),
        lambda: store.resume(job.id),
        queue.claim,
    ]
    with store.notifier.subscribe(job.name) as told, store.notifier.subscribe("trainingJobs/other") as silent:
        for change in changes:
            await change()
            async with asyncio.timeout(5):
                await told.wait(60)
        assert not silent._changed.is_set()


async def test_runners_are_told_of_new_work(store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    with store.notifier.subscribe(QUEUED) as told:
        async with asyncio.timeout(5):
            job = await create()
            await told.wait(60)
            await queue.put_back(await claimed(queue), Retry.STOPPED, "")
            await told.wait(60)
            await store.request_pause(job.id)
            await store.resume(job.id)
            await told.wait(60)


async def test_a_job_whose_worker_is_lost_again_and_again_fails(
    store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock
) -> None:
    await create()
    for state in (JobState.QUEUED, JobState.QUEUED, JobState.FAILED):
        clock.advance(60)
        job = await queue.put_back(await claimed(queue), Retry.LOST_WORKER, "killed")
        assert job.state is state
    assert job.error_reason == "WORKER_CRASHED"
    assert job.error == "its worker was lost 3 times without getting further: killed"


async def test_a_later_checkpoint_gives_the_tries_back_the_same_one_does_not(
    store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock
) -> None:
    await create()
    states = []
    for step in (1, 2, 3, 4, 4, 4, 4):
        clock.advance(60)
        job = await claimed(queue)
        await queue.add_checkpoint(job, checkpoint(job, step))
        states.append((await queue.put_back(job, Retry.LOST_WORKER, "killed")).state)
        if states[-1] is JobState.FAILED:
            break
    assert states == [JobState.QUEUED] * 5 + [JobState.FAILED]


async def test_what_is_away_is_waited_for_without_counting(queue: JobQueue, create: CreateJob, clock: Clock) -> None:
    await create()
    for _ in range(20):
        clock.advance(60)
        assert (await queue.put_back(await claimed(queue), Retry.UNAVAILABLE, "away")).state is JobState.QUEUED


async def test_times_are_the_clocks_and_in_utc(
    store: JobStore, create: CreateJob, clock: Clock, database: Database
) -> None:
    created = clock.now
    job = await create()
    clock.advance(60)
    await store.request_cancel(job.id)

    found = await JobStore(database, clock=clock).get(job.id)

    assert (found.create_time, found.update_time, found.end_time) == (created, clock.now, clock.now)


async def test_jobs_of_other_releases_are_listed_and_their_spec_is_kept_as_stored(
    store: JobStore, queue: JobQueue, create: CreateJob, database: Database
) -> None:
    """An option that was dropped since, and jobs from before an option existed."""
    job = await create()
    foreign = {"method": "full", "quantization": "none", "wizardry": {"wand": 3}}
    async with database.write() as db:
        await db.execute(sa.update(jobs).where(jobs.c.id == job.id).values(spec=foreign))

    await claimed(queue)

    (_, found), *_ = await store.list_jobs(before=0, limit=9)
    assert found.spec == TrainingSpec(tuning="full")
    async with database.write() as db:
        assert (await db.execute(sa.select(jobs.c.spec))).scalar_one() == foreign


async def test_events_of_other_releases_are_told(store: JobStore, create: CreateJob, database: Database) -> None:
    job = await create()
    rows = [("note", {"text": "x", "mood": "good"}), ("weather", {"sun": True}), ("data_report", {"rows": 3})]
    async with database.write() as db:
        for sequence, (kind, body) in enumerate(rows, start=2):
            values = {"job_id": job.id, "sequence": sequence, "kind": kind, "body": body, "create_time": Clock().now}
            await db.execute(job_events.insert().values(**values))

    bodies = [event.body for event in await store.events_after(job.id, 1)]

    assert bodies == [Note(text="x"), Note(text="weather: {'sun': True}"), DataReport(rows=3)]


async def test_a_log_that_is_shown_rewrites_no_job(queue: JobQueue, create: CreateJob) -> None:
    await create()
    job = await claimed(queue)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        await queue.show_log(job, LogTail("one\n"))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert any(job_logs.name in statement for statement in statements)
    assert not [statement for statement in statements if statement.startswith(f"UPDATE {jobs.name} ")]


async def test_the_end_of_a_log_is_shown_by_whoever_holds_the_lease(
    store: JobStore, queue: JobQueue, create: CreateJob, clock: Clock
) -> None:
    job = await create()
    assert await store.log(job.id) is None
    first = await claimed(queue)
    for text in ("one\n", "one\ntwo\0\n"):
        await queue.show_log(first, LogTail(text, truncated=True))
    assert await store.log(job.id) == LogTail("one\ntwo\N{REPLACEMENT CHARACTER}\n", truncated=True)
    clock.advance(LEASE_SECONDS + 1)
    second = await claimed(queue)
    with pytest.raises(LeaseLost):
        await queue.show_log(first, LogTail("late\n"))
    await queue.show_log(second, LogTail("new\n"))
    assert await store.log(job.id) == LogTail("new\n")
