"""The trainer over gRPC, through its composition root: what clients may ask, what they are told when they may not."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.unit.trainer.conftest import BuildApp
from tests.unit.trainer.fakes import FakeRegistry
from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
from tuneloom_common.grpc import open_channel
from tuneloom_common.paging import encode_token
from tuneloom_trainer.app import SERVICE_NAME, TrainerApp
from tuneloom_trainer.jobs import Checkpoint, CheckpointRegistered, JobState
from tuneloom_trainer.training_events import DataReport, Note, Progress, SampleChat


@pytest.fixture
async def app(build_app: BuildApp) -> TrainerApp:
    return await build_app()


@asynccontextmanager
async def client_of(app: TrainerApp, *, token: str | None = None) -> AsyncIterator[Any]:
    async with open_channel(f"127.0.0.1:{app.port}", token=token) as channel:
        yield TrainerServiceStub(channel)


@pytest.fixture
async def client(app: TrainerApp) -> AsyncIterator[Any]:
    async with client_of(app) as client:
        yield client


def wanted(
    *, request_id: str = "", validate_only: bool = False, **changes: Any
) -> trainer_pb2.CreateTrainingJobRequest:
    fields = {"base_model": "seed", "dataset": "datasets/chats", "output_model": "models/assistant", **changes}
    return trainer_pb2.CreateTrainingJobRequest(
        training_job=jobs_pb2.TrainingJob(**fields), request_id=request_id, validate_only=validate_only
    )


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """(code, reason, field) of a call that must fail, after checking what every error has."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert status.message == caught.value.details()
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert info.domain == "trainer.tuneloom"
    if caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT:
        assert status.details[1].Unpack(bad)
        assert bad.field_violations[0].description
    field = bad.field_violations[0].field if bad.field_violations else ""
    return caught.value.code(), info.reason, field


async def test_a_workers_log_can_be_read_from_its_end(client: Any, tmp_path: Path) -> None:
    job = await client.CreateTrainingJob(wanted())
    ask = trainer_pb2.ReadTrainingJobLogRequest
    assert await client.ReadTrainingJobLog(ask(name=job.name)) == trainer_pb2.ReadTrainingJobLogResponse()
    log = tmp_path / "work" / "runs" / job.name.partition("/")[2] / "worker.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"first\nsecond\n\xff third\n")
    for max_bytes, text, truncated in (
        (0, "first\nsecond\n\ufffd third\n", False),
        (21, "first\nsecond\n\ufffd third\n", False),
        (20, "second\n\ufffd third\n", True),
        (15, "second\n\ufffd third\n", True),
        (14, "\ufffd third\n", True),
    ):
        answer = await client.ReadTrainingJobLog(ask(name=job.name, max_bytes=max_bytes))
        assert (answer.text, answer.truncated) == (text, truncated), max_bytes
    for max_bytes in (-1, (1 << 20) + 1):
        code, _, field = await refusal(client.ReadTrainingJobLog(ask(name=job.name, max_bytes=max_bytes)))
        assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "max_bytes")
    code, _, _ = await refusal(client.ReadTrainingJobLog(ask(name="trainingJobs/../registry")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_job_is_resolved_stored_and_found_again(client: Any, registry: FakeRegistry) -> None:
    spec = jobs_pb2.TrainingSpec(max_steps=9, lora=jobs_pb2.LoraSpec(r=8))
    made = await client.CreateTrainingJob(wanted(spec=spec, merge=True))

    assert made.name.startswith("trainingJobs/job-")
    assert made.state == jobs_pb2.JOB_STATE_QUEUED
    assert made.dataset == "datasets/chats/versions/1"
    assert (made.recipe, made.merge) == ("qlora", True)
    assert (made.spec.max_steps, made.spec.lora.r, made.spec.lora.alpha) == (9, 8, 32)
    assert (made.spec.method, made.spec.quantization) == (jobs_pb2.METHOD_LORA, jobs_pb2.QUANTIZATION_NF4)
    assert (made.spec.tuning, made.spec.objective) == (jobs_pb2.TUNING_LORA, jobs_pb2.OBJECTIVE_SFT)
    assert await client.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=made.name)) == made


@pytest.mark.parametrize(("recipe", "merge"), [("qlora", True), ("full", False)])  # there a merge has nothing to fold
async def test_validate_only_answers_the_job_as_it_would_be_and_stores_nothing(
    client: Any, recipe: str, merge: bool
) -> None:
    checked = await client.CreateTrainingJob(wanted(validate_only=True, recipe=recipe, merge=True))
    listed = await client.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest())
    made = await client.CreateTrainingJob(wanted(recipe=recipe, merge=True))

    assert not listed.training_jobs
    assert (checked.name, checked.state) == ("", jobs_pb2.JOB_STATE_UNSPECIFIED)
    for field in ("spec", "dataset", "recipe", "output_model", "base_model", "merge"):
        assert getattr(made, field) == getattr(checked, field)
    assert checked.merge == merge


async def test_the_same_request_id_gives_the_same_job(client: Any) -> None:
    made = await asyncio.gather(*(client.CreateTrainingJob(wanted(request_id="r-1")) for _ in range(5)))
    other = await client.CreateTrainingJob(wanted(request_id="r-2"))

    assert len({job.name for job in made}) == 1
    assert other.name != made[0].name


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
Spec, Lora = jobs_pb2.TrainingSpec, jobs_pb2.LoraSpec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base_model": ""}, (INVALID, "INVALID_ARGUMENT", "base_model")),
        ({"base_model": "nobody"}, (NOT_FOUND, "NOT_FOUND", "")),
        ({"base_model": "adapter"}, (INVALID, "INVALID_ARGUMENT", "base_model")),
        ({"base_model": "datasets/chats"}, (INVALID, "INVALID_ARGUMENT", "base_model")),
        ({"dataset": ""}, (INVALID, "INVALID_ARGUMENT", "dataset")),
        ({"dataset": "datasets/none"}, (NOT_FOUND, "NOT_FOUND", "")),
        ({"dataset": "seed"}, (INVALID, "INVALID_ARGUMENT", "dataset")),
        ({"dataset": "datasets/split"}, (INVALID, "INVALID_ARGUMENT", "dataset")),
        ({"output_model": ""}, (INVALID, "INVALID_ARGUMENT", "output_model")),
        ({"output_model": "assistant"}, (INVALID, "INVALID_ARGUMENT", "output_model")),
        ({"output_model": "models/a/../b"}, (INVALID, "INVALID_ARGUMENT", "output_model")),
        ({"recipe": "magic"}, (NOT_FOUND, "NOT_FOUND", "")),
        ({"spec": Spec(learning_rate=-1)}, (INVALID, "INVALID_ARGUMENT", "spec.learning_rate")),
        ({"spec": Spec(lora=Lora(alpha=float("inf")))}, (INVALID, "INVALID_ARGUMENT", "spec.lora.alpha")),
        ({"spec": Spec(method=jobs_pb2.METHOD_FULL)}, (INVALID, "INVALID_ARGUMENT", "spec.quantization")),
        ({"spec": Spec(method=77)}, (INVALID, "INVALID_ARGUMENT", "spec.method")),
        ({"spec": Spec(sample_prompts=["x"] * 33)}, (INVALID, "INVALID_ARGUMENT", "spec.sample_prompts")),
        ({"spec": Spec(max_length=4097)}, (INVALID, "INVALID_ARGUMENT", "spec.max_length")),
        ({"base_model": "alien"}, (INVALID, "UNKNOWN_ARCHITECTURE", "base_model")),
        ({"request_id": "r" * 200}, (INVALID, "INVALID_ARGUMENT", "request_id")),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_bad_request_is_refused_by_field(
    client: Any, changes: dict[str, Any], expected: tuple[Any, str, str], validate_only: bool
) -> None:
    assert await refusal(client.CreateTrainingJob(wanted(validate_only=validate_only, **changes))) == expected
    assert not (await client.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest())).training_jobs


async def test_a_merged_model_can_be_trained_on(client: Any) -> None:
    assert (await client.CreateTrainingJob(wanted(base_model="coach"))).base_model == "coach"


async def test_a_registry_that_is_down_is_unavailable(client: Any, registry: FakeRegistry) -> None:
    registry.down = 99

    assert await refusal(client.CreateTrainingJob(wanted())) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "")


async def test_a_retry_is_answered_while_the_registry_is_down(client: Any, registry: FakeRegistry) -> None:
    made = await client.CreateTrainingJob(wanted(request_id="r-1"))
    registry.down = 99
    assert await client.CreateTrainingJob(wanted(request_id="r-1")) == made
    assert registry.down == 99


async def test_another_job_under_a_used_request_id_is_refused_with_the_difference(client: Any) -> None:
    made = await client.CreateTrainingJob(wanted(request_id="r-1"))
    other = wanted(request_id="r-1")
    other.training_job.spec.num_epochs = 7
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.CreateTrainingJob(other)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"has created {made.name} with spec.num_epochs unset, not 7.0" in str(caught.value.details())


async def test_a_workers_events_are_taken_in_once_and_in_order(app: TrainerApp, client: Any) -> None:
    name = (await client.CreateTrainingJob(wanted())).name
    job = await app.queue.claim()
    assert job is not None
    line = json.dumps({"type": "note", "text": "hello"})

    def report(first: int, *events: str, epoch: int = 1) -> Any:
        return client.ReportEvents(
            trainer_pb2.ReportEventsRequest(name=name, lease_epoch=epoch, first_sequence=first, events=events)
        )

    with app.inboxes.open(job.lease) as inbox:
        heard: list[int] = []

        async def listen() -> None:
            async for batch in inbox.batches():
                heard.extend(event.sequence for event in batch)

        listening = asyncio.create_task(listen())
        assert (await report(1, line, line)).last_sequence == 2
        assert (await report(2, line, line)).last_sequence == 3  # sent again after a lost answer
        assert heard == [1, 2, 3]
        assert (await refusal(report(9, line)))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "EVENTS_MISSING")
        assert (await refusal(report(4, "{}")))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert (await refusal(report(4, line, epoch=2)))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert (await refusal(report(4, line)))[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")


async def test_jobs_are_listed_newest_first_in_pages(client: Any) -> None:
    names = [(await client.CreateTrainingJob(wanted())).name for _ in range(5)]
    seen: list[str] = []
    token = ""
    for _ in range(3):
        request = trainer_pb2.ListTrainingJobsRequest(page_size=2, page_token=token)
        page = await client.ListTrainingJobs(request)
        seen += [job.name for job in page.training_jobs]
        token = page.next_page_token

    assert seen == names[::-1]
    assert token == ""


async def test_checkpoints_are_listed_newest_first_in_pages(app: TrainerApp, client: Any) -> None:
    name = (await client.CreateTrainingJob(wanted())).name
    job = await app.queue.claim()
    assert job is not None
    for step in (10, 20, 30):
        await app.queue.add_checkpoint(
            job, Checkpoint(job.id, step, f"models/{job.id}/versions/{step}", 0.5, job.create_time)
        )

    first = await client.ListCheckpoints(trainer_pb2.ListCheckpointsRequest(parent=name, page_size=2))
    second = await client.ListCheckpoints(
        trainer_pb2.ListCheckpointsRequest(parent=name, page_size=2, page_token=first.next_page_token)
    )

    assert [found.step for found in (*first.checkpoints, *second.checkpoints)] == [30, 20, 10]
    assert second.next_page_token == ""
    assert first.checkpoints[0].name == f"{name}/checkpoints/30"
    assert first.checkpoints[0].model_name == f"{job.id}@30"


@pytest.mark.parametrize("token", ["%%", encode_token("abc"), encode_token("-4"), encode_token("9" * 30), "x"])
async def test_a_foreign_page_token_is_refused(client: Any, token: str) -> None:
    request = trainer_pb2.ListTrainingJobsRequest(page_token=token)

    assert await refusal(client.ListTrainingJobs(request)) == (INVALID, "INVALID_ARGUMENT", "page_token")


async def test_a_negative_page_size_is_refused(client: Any) -> None:
    request = trainer_pb2.ListTrainingJobsRequest(page_size=-1)

    assert await refusal(client.ListTrainingJobs(request)) == (INVALID, "INVALID_ARGUMENT", "page_size")


async def test_every_call_about_a_job_checks_its_name(client: Any) -> None:
    for name, expected in (
        ("trainingJobs/none", (NOT_FOUND, "NOT_FOUND")),
        ("jobs/none", (INVALID, "INVALID_ARGUMENT")),
        ("trainingJobs/", (INVALID, "INVALID_ARGUMENT")),
        ("trainingJobs/../x", (INVALID, "INVALID_ARGUMENT")),
    ):
        for call, field in (
            (client.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=name)), "name"),
            (client.CancelTrainingJob(trainer_pb2.CancelTrainingJobRequest(name=name)), "name"),
            (client.PauseTrainingJob(trainer_pb2.PauseTrainingJobRequest(name=name)), "name"),
            (client.ResumeTrainingJob(trainer_pb2.ResumeTrainingJobRequest(name=name)), "name"),
            (client.ListCheckpoints(trainer_pb2.ListCheckpointsRequest(parent=name)), "parent"),
            (anext(aiter(client.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name=name)))), "name"),
        ):
            assert await refusal(call) == (*expected, field if expected[0] is INVALID else "")


async def test_a_job_is_paused_resumed_and_cancelled(client: Any) -> None:
    name = (await client.CreateTrainingJob(wanted())).name

    paused = await client.PauseTrainingJob(trainer_pb2.PauseTrainingJobRequest(name=name))
    resumed = await client.ResumeTrainingJob(trainer_pb2.ResumeTrainingJobRequest(name=name))
    cancelled = await client.CancelTrainingJob(trainer_pb2.CancelTrainingJobRequest(name=name))

    assert [job.state for job in (paused, resumed, cancelled)] == [
        jobs_pb2.JOB_STATE_PAUSED,
        jobs_pb2.JOB_STATE_QUEUED,
        jobs_pb2.JOB_STATE_CANCELLED,
    ]
    assert cancelled.HasField("end_time")
    late = client.ResumeTrainingJob(trainer_pb2.ResumeTrainingJobRequest(name=name))
    assert (await refusal(late))[0] is grpc.StatusCode.FAILED_PRECONDITION


Watch = Callable[[int], Any]


@pytest.fixture
async def watched(app: TrainerApp, client: Any) -> tuple[Any, Watch]:
    """A claimed job, and how to watch it after a cursor."""
    name = (await client.CreateTrainingJob(wanted())).name
    job = await app.queue.claim()
    assert job is not None
    return job, lambda after: client.WatchTrainingJob(
        trainer_pb2.WatchTrainingJobRequest(name=name, after_sequence=after), timeout=20
    )


async def test_a_watcher_that_reconnects_misses_nothing_and_sees_nothing_twice(
    app: TrainerApp, watched: tuple[Any, Watch]
) -> None:
    job, watch = watched
    seen: list[int] = []
    for number in range(10):
        stream = watch(seen[-1] if seen else 0)
        events = aiter(stream)
        await app.queue.append_events(
            job, [Note(text=f"{number}.{part}") for part in range(3)], worker_sequence=3 * number + 3
        )
        for _ in range(2):
            seen.append((await anext(events)).sequence)
        stream.cancel()  # in the middle of what there is
    await app.queue.finish(job, JobState.FAILED, error="enough")

    rest = [event async for event in watch(seen[-1])]

    seen += [event.sequence for event in rest]
    assert seen == list(range(1, 2 + 30 + 1 + 1))
    assert rest[-1].state_changed.state == jobs_pb2.JOB_STATE_FAILED
    assert rest[-1].state_changed.reason == "enough"


async def test_a_watch_ends_after_the_final_state_and_starts_anywhere(
    app: TrainerApp, watched: tuple[Any, Watch]
) -> None:
    job, watch = watched
    live = asyncio.create_task(collect(watch(0)))
    await app.queue.enter_running(job)
    await app.queue.finish(job, JobState.SUCCEEDED)

    events = await live

    assert [event.state_changed.state for event in events] == [
        jobs_pb2.JOB_STATE_QUEUED,
        jobs_pb2.JOB_STATE_VALIDATING,
        jobs_pb2.JOB_STATE_RUNNING,
        jobs_pb2.JOB_STATE_SUCCEEDED,
    ]
    assert await collect(watch(0)) == events
    assert await collect(watch(3)) == events[3:]
    assert await collect(watch(4)) == await collect(watch(99)) == []


async def collect(stream: Any) -> list[trainer_pb2.TrainingJobEvent]:
    return [event async for event in stream]


async def test_every_kind_of_event_reaches_the_watcher(app: TrainerApp, watched: tuple[Any, Watch]) -> None:
    job, watch = watched
    bodies = [
        DataReport(rows=1, tokens=9, trained_tokens=4, sequences=1, stop_token_trained=True),
        Progress(step=1, total_steps=2, loss=0.5, learning_rate=0.1, epoch=0.5, tokens_per_second=7.0, eta_seconds=1.0),
        CheckpointRegistered(step=1, version="models/x/versions/1", loss=0.5),
        SampleChat(step=1, prompt="hi", answer="hello"),
        Note(text="well"),
    ]
    await app.queue.append_events(job, bodies, worker_sequence=5)
    await app.queue.finish(job, JobState.FAILED)

    events = (await collect(watch(2)))[:-1]

    assert [event.WhichOneof("event") for event in events] == [body.kind for body in bodies]
    assert events[0].data_report.trained_tokens == 4
    assert events[1].progress.tokens_per_second == 7.0
    assert events[2].checkpoint.model_name == f"{job.id}@1"
    assert events[3].sample_chat.answer == "hello"
    assert (await app.store.get(job.id)).progress == bodies[1]


async def test_recipes_are_listed_with_their_defaults(client: Any) -> None:
    recipes = (await client.ListRecipes(trainer_pb2.ListRecipesRequest())).recipes

    assert [recipe.name for recipe in recipes] == ["full", "lora", "qlora"]
    assert all(recipe.description and recipe.spec.learning_rate > 0 for recipe in recipes)


async def test_the_token_is_required_on_every_call_but_health(build_app: BuildApp) -> None:
    app = await build_app(token="s3cret")
    for token in (None, "wrong", "s3cre"):
        async with client_of(app, token=token) as client:
            refused = grpc.StatusCode.UNAUTHENTICATED, "INVALID_KEY", ""
            assert await refusal(client.CreateTrainingJob(wanted())) == refused
            watch = client.WatchTrainingJob(trainer_pb2.WatchTrainingJobRequest(name="trainingJobs/x"))
            assert await refusal(anext(aiter(watch))) == refused
    async with client_of(app, token="s3cret") as client:
        assert (await client.CreateTrainingJob(wanted())).name
    async with open_channel(f"127.0.0.1:{app.port}", token=None) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_and_reflection_answer(app: TrainerApp) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE_NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        answers = [answer async for answer in stream]
        assert SERVICE_NAME in [service.name for service in answers[0].list_services_response.service]


async def test_a_database_that_is_busy_is_unavailable_and_so_worth_another_try(
    build_app: BuildApp, tmp_path: Path
) -> None:
    app = await build_app(database_lock_seconds=0.02)
    async with client_of(app) as client:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            code, reason, _ = await refusal(client.CreateTrainingJob(wanted(request_id="r")))
            other.execute("ROLLBACK")
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_BUSY")
        assert (await client.CreateTrainingJob(wanted(request_id="r"))).name
