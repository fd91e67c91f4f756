"""Two trainers are one: whichever is asked, whichever runs the work, whichever dies."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.conftest import Clients, Library
from tests.cluster.services import Cluster
from tests.cluster.waiting import until
from tuneloom.trainer.v1.jobs_pb2 import TrainingSpec
from tuneloom_client.job_events import JobEvent, StateChanged
from tuneloom_client.jobs import JobRequest, JobState
from tuneloom_client.trainer import TrainerClient


@pytest.fixture
async def wanted(library: Library) -> JobRequest:
    await library.base()
    await library.rows()
    return JobRequest("seed", "datasets/chats", "models/helper", spec=TrainingSpec(sample_prompts=["succeed"]))


def doing(wanted: JobRequest, *words: str) -> JobRequest:
    """The same with another word for each attempt."""
    return JobRequest(wanted.base_model, wanted.dataset, wanted.output_model, spec=TrainingSpec(sample_prompts=words))


async def reaches(trainer: TrainerClient, job: str, state: JobState) -> None:
    async def there() -> bool:
        now = await trainer.job(job)
        assert now.state is state or not now.state.final, now
        return now.state is state

    await until(there)


async def saved(trainer: TrainerClient, job: str) -> None:
    """Waits for a registered checkpoint."""

    async def there() -> bool:
        return bool(await trainer.checkpoints(job))

    await until(there)


async def wrote(trainer: TrainerClient, job: str, words: str) -> None:
    async def there() -> bool:
        return words in (await trainer.log(job)).text

    await until(there)


async def heard(trainer: TrainerClient, job: str) -> list[JobEvent]:
    """All events, to the end of the job."""
    async with asyncio.timeout(60):
        events = [event async for event in trainer.watch(job, on_wait=lambda _: None)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return events


def states(events: list[JobEvent]) -> list[JobState]:
    return [event.happening.state for event in events if isinstance(event.happening, StateChanged)]


async def test_a_job_made_at_one_is_listed_and_watched_at_the_other(clients: Clients, wanted: JobRequest) -> None:
    first, second = clients.trainers
    job = await first.create_job(wanted)
    events = await heard(second, job.name)
    assert states(events)[-1] is JobState.SUCCEEDED
    assert job.name in [each.name for each in await second.jobs()]
    assert await second.job(job.name) == await first.job(job.name)
    assert await second.checkpoints(job.name) == await first.checkpoints(job.name)
    assert await heard(first, job.name) == events


async def test_one_request_at_both_at_once_is_one_job(clients: Clients, wanted: JobRequest) -> None:
    jobs = await asyncio.gather(
        *(trainer.create_job(wanted, request_id="the-same") for trainer in clients.trainers for _ in range(4))
    )
    assert len({job.name for job in jobs}) == 1
    await heard(clients.trainer, jobs[0].name)


async def test_who_does_not_run_it_pauses_resumes_and_cancels(
    cluster: Cluster, clients: Clients, wanted: JobRequest
) -> None:
    job = (await clients.trainer.create_job(doing(wanted, "wait"))).name
    await saved(clients.trainer, job)
    for ask, state in ((TrainerClient.pause, JobState.PAUSED), (TrainerClient.cancel, JobState.CANCELLED)):
        runner = cluster.runner_of(job)
        bystander = clients.trainers[cluster.trainers.index(cluster.other(runner))]
        await ask(bystander, job)
        await reaches(bystander, job, state)
        if state is JobState.PAUSED:
            await bystander.resume(job)
            await reaches(bystander, job, JobState.RUNNING)
    assert states(await heard(clients.trainer, job))[-1] is JobState.CANCELLED


async def test_what_a_worker_wrote_is_read_at_either(cluster: Cluster, clients: Clients, wanted: JobRequest) -> None:
    job = (await clients.trainer.create_job(doing(wanted, "wait", "succeed"))).name
    await saved(clients.trainer, job)
    runner = cluster.trainers.index(cluster.runner_of(job))
    for trainer in clients.trainers:
        await wrote(trainer, job, "attempt 1 does wait")
    cluster.trainers[runner].kill()
    await reaches(clients.trainer, job, JobState.SUCCEEDED)
    cluster.trainers[runner].revive()
    for trainer in clients.trainers:
        assert "attempt 2 does succeed" in (await trainer.log(job)).text
        assert len((await trainer.log(job, max_bytes=24)).text) <= 24


async def test_a_dead_trainer_s_jobs_are_taken_over_and_its_watchers_hear_the_rest(
    cluster: Cluster, clients: Clients, wanted: JobRequest
) -> None:
    """Killed with its worker, which had a checkpoint registered; clients know both addresses."""
    job = (await clients.trainer.create_job(doing(wanted, "wait", "succeed"))).name
    watching = asyncio.create_task(heard(clients.trainer, job))
    await saved(clients.trainer, job)
    runner = cluster.runner_of(job)
    runner.kill()
    events = await watching
    assert states(events)[-1] is JobState.SUCCEEDED
    assert cluster.runner_of(job) is cluster.other(runner)
    done = await clients.trainer.job(job)
    assert done.result_version
    steps = [checkpoint.step for checkpoint in await clients.trainer.checkpoints(job)]
    assert steps == sorted(set(steps), reverse=True)
    versions = [str(version.name) for version in await clients.registry.versions("models/helper")]
    assert versions.count(str(done.result_version)) == 1


async def test_a_trainer_that_is_told_to_stop_hands_over_at_once(
    cluster: Cluster, clients: Clients, wanted: JobRequest
) -> None:
    job = (await clients.trainer.create_job(doing(wanted, "wait", "succeed"))).name
    await saved(clients.trainer, job)
    runner = cluster.runner_of(job)
    assert await asyncio.to_thread(runner.end) == 0
    await reaches(clients.trainer, job, JobState.SUCCEEDED)
    assert cluster.runner_of(job) is cluster.other(runner)


async def test_a_trainer_that_stood_still_past_its_lease_changes_nothing(
    cluster: Cluster, clients: Clients, wanted: JobRequest
) -> None:
    """Its worker is still there when it goes on; the job has another by then."""
    job = (await clients.trainer.create_job(doing(wanted, "wait", "wait", "succeed"))).name
    await saved(clients.trainer, job)
    runner = cluster.runner_of(job)
    bystander = clients.trainers[cluster.trainers.index(cluster.other(runner))]
    with runner.frozen():
        await wrote(bystander, job, "attempt 2 does wait")
    await bystander.pause(job)
    await reaches(bystander, job, JobState.PAUSED)
    await bystander.resume(job)
    assert states(await heard(bystander, job))[-1] is JobState.SUCCEEDED
    checkpoints = [checkpoint.step for checkpoint in await bystander.checkpoints(job)]
    assert checkpoints == sorted(set(checkpoints), reverse=True)


async def test_jobs_are_made_while_one_of_them_is_away(cluster: Cluster, clients: Clients, wanted: JobRequest) -> None:
    cluster.trainers[0].kill()
    jobs = [await clients.trainer.create_job(wanted) for _ in range(3)]
    for job in jobs:
        assert states(await heard(clients.trainer, job.name))[-1] is JobState.SUCCEEDED
