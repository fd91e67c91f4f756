from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.unit.client.conftest import ServeScripted
from tuneloom.trainer.v1 import jobs_pb2
from tuneloom.trainer.v1 import trainer_pb2 as pb
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceServicer
from tuneloom_client.job_events import DataReport, Note, SampleChat, StateChanged
from tuneloom_client.jobs import Checkpoint, JobRequest, JobState, LogTail, Progress
from tuneloom_client.trainer import TrainerClient
from tuneloom_common.errors import FailedPrecondition, NotFound, Unavailable

JOB = "trainingJobs/job-1"
Connect = Callable[..., TrainerClient]


class Trainer(TrainerServiceServicer):
    """Remembers requests; plays `streams` one after the other, each ending in an error but the last."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.down = 0
        self.streams: list[list[pb.TrainingJobEvent]] = [[]]

    def _heard(self, request: Any) -> None:
        self.requests.append(request)
        if self.down:
            self.down -= 1
            raise Unavailable("restarting")

    async def CreateTrainingJob(self, request: pb.CreateTrainingJobRequest, context: Any) -> jobs_pb2.TrainingJob:
        self._heard(request)
        made = jobs_pb2.TrainingJob()
        made.CopyFrom(request.training_job)
        if not request.validate_only:
            made.name = JOB
        return made

    async def GetTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        self._heard(request)
        if request.name != JOB:
            raise NotFound(f"{request.name} does not exist")
        progress = jobs_pb2.Progress(step=3, total_steps=9, loss=0.5)
        return jobs_pb2.TrainingJob(name=JOB, state=jobs_pb2.JOB_STATE_RUNNING, progress=progress, attempt=2)

    async def ListTrainingJobs(self, request: Any, context: Any) -> pb.ListTrainingJobsResponse:
        start = int(request.page_token or 0)
        names = [f"trainingJobs/job-{number}" for number in range(start, min(start + 2, 5))]
        token = str(start + 2) if start + 2 < 5 else ""
        return pb.ListTrainingJobsResponse(
            training_jobs=[jobs_pb2.TrainingJob(name=name) for name in names], next_page_token=token
        )

    async def PauseTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        self._heard(request)
        return jobs_pb2.TrainingJob(name=JOB, state=jobs_pb2.JOB_STATE_PAUSING)

    async def ResumeTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        raise FailedPrecondition("it is not paused")

    async def CancelTrainingJob(self, request: Any, context: Any) -> jobs_pb2.TrainingJob:
        return jobs_pb2.TrainingJob(name=JOB, state=jobs_pb2.JOB_STATE_CANCELLING)

    async def WatchTrainingJob(self, request: Any, context: Any) -> AsyncIterator[pb.TrainingJobEvent]:
        self._heard(request)
        for event in self.streams.pop(0):
            yield event
        if self.streams:
            raise Unavailable("restarting")

    async def ListCheckpoints(self, request: Any, context: Any) -> pb.ListCheckpointsResponse:
        return pb.ListCheckpointsResponse(checkpoints=[jobs_pb2.Checkpoint(step=4, model_name="job-1@4")])

    async def ReadTrainingJobLog(self, request: Any, context: Any) -> pb.ReadTrainingJobLogResponse:
        self._heard(request)
        return pb.ReadTrainingJobLogResponse(text="oops\n", truncated=request.max_bytes > 0)

    async def ListRecipes(self, request: Any, context: Any) -> pb.ListRecipesResponse:
        return pb.ListRecipesResponse(recipes=[pb.Recipe(name="qlora", description="small")])


@pytest.fixture
def service() -> Trainer:
    return Trainer()


@pytest.fixture
async def trainer(service: Trainer, serve: ServeScripted, trainer_at: Connect) -> TrainerClient:
    return trainer_at(await serve(service))


WANTED = JobRequest("seed", "datasets/faq", "models/faq", "qlora", jobs_pb2.TrainingSpec(max_steps=5), merge=True)


async def test_a_job_that_is_asked_for_twice_is_one_job(service: Trainer, trainer: TrainerClient) -> None:
    service.down = 1
    job = await trainer.create_job(WANTED)
    assert (job.name, job.id, job.spec.max_steps, job.merge) == (JOB, "job-1", 5, True)
    first, second = service.requests
    assert first.request_id == second.request_id != ""
    await trainer.create_job(WANTED, request_id="mine")
    assert service.requests[-1].request_id == "mine"


async def test_checking_stores_nothing(service: Trainer, trainer: TrainerClient) -> None:
    assert (await trainer.check_job(WANTED)).name == ""
    assert service.requests[0].validate_only


async def test_a_job_as_it_is(trainer: TrainerClient) -> None:
    job = await trainer.job(JOB)
    assert (job.state, job.attempt, job.end_time) == (JobState.RUNNING, 2, None)
    assert job.progress == Progress(3, 9, 0.5, 0, 0, 0, 0)
    with pytest.raises(NotFound, match="job-9"):
        await trainer.job("trainingJobs/job-9")


async def test_lists_come_whole_or_as_far_as_wanted(trainer: TrainerClient) -> None:
    assert [job.id for job in await trainer.jobs()] == [f"job-{number}" for number in range(5)]
    assert [job.id for job in await trainer.jobs(at_most=3)] == ["job-0", "job-1", "job-2"]
    assert [point.model_name for point in await trainer.checkpoints(JOB)] == ["job-1@4"]
    assert [recipe.name for recipe in await trainer.recipes()] == ["qlora"]


async def test_a_log_comes_from_its_end(trainer: TrainerClient) -> None:
    assert await trainer.log(JOB) == LogTail("oops\n", truncated=False)
    assert (await trainer.log(JOB, max_bytes=5)).truncated


async def test_verbs_are_sent_once(service: Trainer, trainer: TrainerClient) -> None:
    assert (await trainer.pause(JOB)).state is JobState.PAUSING
    assert (await trainer.cancel(JOB)).state is JobState.CANCELLING
    with pytest.raises(FailedPrecondition, match="not paused"):
        await trainer.resume(JOB)
    service.requests.clear()
    service.down = 1
    with pytest.raises(Unavailable):
        await trainer.pause(JOB)
    assert len(service.requests) == 1


async def test_every_event_has_a_type(service: Trainer, trainer: TrainerClient) -> None:
    service.streams = [
        [
            pb.TrainingJobEvent(sequence=1, state_changed=pb.StateChanged(state=jobs_pb2.JOB_STATE_QUEUED, reason="r")),
            pb.TrainingJobEvent(sequence=2, data_report=pb.DataReport(rows=3, tokens=9)),
            pb.TrainingJobEvent(sequence=3, progress=jobs_pb2.Progress(step=1, total_steps=2)),
            pb.TrainingJobEvent(sequence=4, sample_chat=pb.SampleChat(step=1, prompt="p", answer="a")),
            pb.TrainingJobEvent(sequence=5, checkpoint=jobs_pb2.Checkpoint(step=1, model_name="job-1@1")),
            pb.TrainingJobEvent(sequence=6, note=pb.Note(text="n")),
            pb.TrainingJobEvent(sequence=7),
            pb.TrainingJobEvent(sequence=8, state_changed=pb.StateChanged(state=99)),  # type: ignore[arg-type]
        ]
    ]
    events = [event async for event in trainer.watch(JOB)]
    assert [event.sequence for event in events] == list(range(1, 9))
    kinds = [type(event.happening) for event in events[:6]]
    assert kinds == [StateChanged, DataReport, Progress, SampleChat, Checkpoint, Note]
    assert events[0].happening == StateChanged(JobState.QUEUED, "r")
    assert events[6].happening is None
    assert events[7].happening == StateChanged(JobState.UNSPECIFIED, "")


async def test_a_watch_goes_on_after_the_trainers_death(service: Trainer, trainer: TrainerClient) -> None:
    service.streams = [
        [pb.TrainingJobEvent(sequence=1), pb.TrainingJobEvent(sequence=2)],
        [pb.TrainingJobEvent(sequence=3)],
    ]
    waits: list[Unavailable] = []
    assert [event.sequence async for event in trainer.watch(JOB, on_wait=waits.append)] == [1, 2, 3]
    assert [request.after_sequence for request in service.requests] == [0, 2]
    assert len(waits) == 1
