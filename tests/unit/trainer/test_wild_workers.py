"""Workers that tell what nobody can store or show: their job ends, and everybody else's calls go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.trainer.conftest import BuildApp, CreateJob
from tests.unit.trainer.fakes import Clock, FakeRegistry
from tests.unit.trainer.running import running, submit, until_state
from tuneloom.trainer.v1 import trainer_pb2
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
from tuneloom_client.trainer import TrainerClient
from tuneloom_common.database import Database
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.grpc import open_channel
from tuneloom_common.queue import Lease
from tuneloom_trainer import mapping
from tuneloom_trainer.app import TrainerApp
from tuneloom_trainer.jobs import JobState
from tuneloom_trainer.store import JobStore
from tuneloom_trainer.tables import checkpoints, job_events, jobs
from tuneloom_trainer.training_events import DataReport, Note, Progress
from tuneloom_trainer.worker.protocol import NOT_AN_EVENT, CheckpointSaved, LoggedEvent

HUGE = 10**30
NESTED = "[" * 100_000 + "]" * 100_000
MAX_TEXT_BYTES = 64 << 10
REFUSED = [
    json.dumps({"type": "progress", "step": HUGE}),
    json.dumps({"type": "progress", "step": -1}),
    json.dumps({"type": "progress", "step": 1, "total_steps": 1 << 31}),
    json.dumps({"type": "progress", "step": 1, "loss": 10**400}),
    json.dumps({"type": "data_report", "tokens": 1 << 63}),
    json.dumps({"type": "checkpoint", "step": HUGE, "path": "checkpoints/x"}),
    json.dumps({"type": "checkpoint", "step": 1, "path": "x" * (1 << 20)}),
    json.dumps({"type": "exited", "status": HUGE}),
    f'{{"type": "note", "text": {NESTED}}}',
]


def parse(told: str, **head: Any) -> LoggedEvent:
    return LoggedEvent.parse(f"{json.dumps({'seq': 1, **head})[:-1]}, {told[1:]}".encode())


@pytest.mark.parametrize("told", REFUSED, ids=lambda told: told[:40])
def test_what_cannot_be_stored_or_shown_is_no_event(told: str) -> None:
    with pytest.raises(NOT_AN_EVENT):
        parse(told)


@pytest.mark.parametrize("head", [{"seq": HUGE}, {"seq": -1}, {"seq": float("inf")}, {"epoch": HUGE}], ids=str)
def test_a_head_that_no_column_holds_is_no_event(head: dict[str, Any]) -> None:
    with pytest.raises(NOT_AN_EVENT):
        parse('{"type": "note", "text": "x"}', **head)


def test_texts_are_cut_and_made_sound() -> None:
    assert parse(r'{"type": "note", "text": "a\ud800b\u0000c"}').event == Note(text="a\ufffdb\ufffdc")
    long = parse(json.dumps({"type": "note", "text": "ü" * (10 << 20)})).event
    assert isinstance(long, Note)
    assert MAX_TEXT_BYTES - 100 < len(long.text.encode()) <= MAX_TEXT_BYTES
    assert long.text.endswith(" … (cut)")


def test_what_is_large_and_sound_passes() -> None:
    report = DataReport(rows=1 << 40, tokens=1 << 50, trained_tokens=1 << 50, sequences=1 << 40)
    files = [{"path": f"shard-{number}", "size": 50 << 30, "sha256": "a" * 64} for number in range(3000)]
    saved = {"step": (1 << 31) - 1, "path": "checkpoints/step", "files": files}
    text = "y" * MAX_TEXT_BYTES
    assert parse(json.dumps({"type": "data_report", **report.model_dump()})).event == report
    assert parse(json.dumps({"type": "checkpoint", **saved})).event == CheckpointSaved.model_validate(saved)
    assert parse(json.dumps({"type": "note", "text": text})).event == Note(text=text)


async def told(app: TrainerApp, name: str) -> list[trainer_pb2.TrainingJobEvent]:
    """Every event of a job that ended, when list and get answer too."""
    async with open_channel(f"127.0.0.1:{app.port}", token=None) as channel:
        trainer = TrainerServiceStub(channel)
        listed = await trainer.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest(page_size=1000))
        assert name in [job.name for job in listed.training_jobs]
        await trainer.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=name))
        await trainer.ListCheckpoints(trainer_pb2.ListCheckpointsRequest(parent=name))
        watch = trainer.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=name), timeout=20)
        return [event async for event in watch]


@pytest.mark.parametrize("word", ["overcount", "undercount", "oversave", "overnumber", "nest"])
async def test_a_worker_that_tells_the_impossible_fails_its_job_at_once(
    build_app: BuildApp, registry: FakeRegistry, word: str
) -> None:
    app = await build_app(max_attempts=1)
    async with running(app):
        failed = await until_state(app, await submit(app, registry, word), JobState.FAILED)
    assert (failed.error_reason, failed.lease_epoch) == ("WORKER_PROTOCOL", 1)
    assert (await told(app, failed.name))[-1].state_changed.reason == failed.error


async def test_a_worker_that_babbles_is_shown_in_part(build_app: BuildApp, registry: FakeRegistry) -> None:
    app = await build_app(max_attempts=1)
    async with running(app):
        done = await until_state(app, await submit(app, registry, "babble"), JobState.SUCCEEDED)
    events = await told(app, done.name)
    assert [event.sample_chat.answer[:8] for event in events if event.HasField("sample_chat")] == [
        "half \ufffd a",
        "x" * 8,
    ]
    assert all(event.ByteSize() < 3 * MAX_TEXT_BYTES for event in events)


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:40])
async def test_a_report_of_the_impossible_is_an_invalid_argument(app: TrainerApp, line: str) -> None:
    with app.inboxes.open(Lease("job-a", 3)) as mine:
        async with TrainerClient.at(f"127.0.0.1:{app.port}", token=mine.token) as trainer:
            with pytest.raises(InvalidArgument, match=r"events\[0\]"):
                await trainer.report_events("job-a", lease_epoch=3, first_sequence=1, events=[line])


async def test_what_is_stored_already_is_told_as_far_as_it_fits(
    store: JobStore, create: CreateJob, database: Database, database_url: str
) -> None:
    job, now = await create(), Clock().now
    progress = {"step": HUGE, "total_steps": 9, "loss": 1.5}
    bodies = [
        ("progress", progress),
        ("sample_chat", {"step": 1, "prompt": "\ud800", "answer": "y"}),
        ("note", {"text": "z" * (20 << 20)}),
        ("checkpoint", {"step": "first", "version": "v"}),
    ]
    of_job = {"job_id": job.id, "create_time": now}
    async with database.write() as db:
        broken = jobs.update().where(jobs.c.id == job.id)
        await db.execute(broken.values(progress=progress, state="failed", error="e" * (20 << 20)))
        for sequence, (kind, body) in enumerate(bodies, start=2):
            await db.execute(job_events.insert().values(**of_job, sequence=sequence, kind=kind, body=body))
        if database_url.startswith("sqlite"):  # PostgreSQL would have refused it
            late = {"step": 1 << 40, "version": "v", "loss": 0.5, "lease_epoch": 1, "last": False}
            await db.execute(checkpoints.insert().values(**of_job, **late))

    (_, found), *_ = await store.list_jobs(before=0, limit=9)
    shown = mapping.to_job(found)
    events = [mapping.to_event(job.id, event) for event in await store.events_after(job.id, 1)]

    assert found.progress == Progress(step=0, total_steps=9, loss=1.5)
    assert shown.ByteSize() < MAX_TEXT_BYTES
    assert [event.WhichOneof("event") for event in events] == ["note", "sample_chat", "note", "note"]
    assert str(HUGE) in events[0].note.text
    assert events[1].sample_chat.prompt == "\ufffd"
    for checkpoint in await store.list_checkpoints(job.id, before=0, limit=9):
        assert mapping.to_checkpoint(checkpoint).step == (1 << 31) - 1
