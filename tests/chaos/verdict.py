"""Whether anything was lost, doubled or damaged: everything that is promised, looked up at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.blobs import Blobs
from tests.chaos.load import Acknowledged
from tuneloom_cli.clients import Services
from tuneloom_client.job_events import JobEvent, StateChanged
from tuneloom_client.jobs import Checkpoint, Job, JobState, Progress
from tuneloom_common.errors import TuneloomError
from tuneloom_common.kinds import Kind
from tuneloom_common.names import DEFAULT_ALIAS, VersionName


@dataclass
class Verdict:
    """Sentences about what is not as promised, and what was looked at."""

    wrong: list[str] = field(default_factory=list)
    jobs: int = 0
    events: int = 0
    checkpoints: int = 0
    blobs: int = 0
    attempts: int = 0
    steps_again: int = 0

    def expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.wrong.append(otherwise)


async def examine(services: Services, acknowledged: Sequence[Acknowledged], blobs: Blobs) -> Verdict:
    """Looks at every job, its events, its versions and every blob."""
    found = Verdict()
    jobs = {job.name: job for job in await services.trainer.jobs(at_most=10_000)}
    found.expect(len(jobs) == len(acknowledged), f"{len(jobs)} jobs for {len(acknowledged)} acknowledged requests")
    for each in acknowledged:
        job = jobs.get(each.job)
        if job is None:
            found.wrong.append(f"{each.job} was acknowledged and is lost")
            continue
        found.jobs += 1
        found.attempts += job.attempt
        await _same_again(found, services, each)
        await _events(found, services, job)
        found.expect(job.state is JobState.SUCCEEDED, f"{job.name} is {job.state}: {job.error[:300]}")
        if job.state is JobState.SUCCEEDED:
            await _results(found, services, job)
    async for name, content in blobs:
        found.blobs += 1
        found.expect(content == name, f"blob {name} is damaged")
    return found


async def _same_again(found: Verdict, services: Services, each: Acknowledged) -> None:
    again = await services.trainer.create_job(each.wanted, request_id=each.request_id)
    found.expect(again.name == each.job, f"{each.request_id} made {again.name} beside {each.job}")


async def _events(found: Verdict, services: Services, job: Job) -> None:
    events = [event async for event in services.trainer.watch(job.name)] if job.state.final else []
    found.events += len(events)
    sequences = [event.sequence for event in events]
    found.expect(sequences == list(range(1, len(events) + 1)), f"{job.name}: gaps or repeats in its events")
    for twice in told_twice(events):
        found.wrong.append(f"{job.name}: {twice} was told twice")
    told = {event.happening.step: event.happening for event in events if isinstance(event.happening, Checkpoint)}
    listed = {each.step: each.version for each in await services.trainer.checkpoints(job.name)}
    found.expect(set(told) == set(listed), f"{job.name}: told checkpoints {sorted(told)}, has {sorted(listed)}")
    for step, checkpoint in told.items():
        found.checkpoints += 1
        try:
            await services.registry.resolve(checkpoint.version)
        except TuneloomError as error:
            found.wrong.append(f"{job.name}: checkpoint {step}: {error}")
    again = trained_again(events)
    found.steps_again += len(again)
    found.expect(not again, f"{job.name}: steps {again} were trained although a checkpoint of them was registered")


async def _results(found: Verdict, services: Services, job: Job) -> None:
    versions = await services.registry.versions(job.output_model)
    for kind, name in ((Kind.ADAPTER, job.result_version), (Kind.MERGED, job.merged_version)):
        names = [str(version.name) for version in versions if version.kind is kind]
        found.expect(names == [name], f"{job.name}: {kind} versions {names}, the job says {name!r}")
    default = (await services.registry.model(job.output_model)).aliases.get(DEFAULT_ALIAS, 0)
    result = VersionName.parse(job.result_version).number
    found.expect(default == result, f"{job.output_model}: default is version {default}, the result {result}")


def told_twice(events: Sequence[JobEvent]) -> list[str]:
    """Checkpoints that were told more than once, and steps that one attempt reported more than once."""
    twice, checkpoints, step = [], set(), 0
    for event in events:
        match event.happening:
            case StateChanged(state=JobState.VALIDATING):
                step = 0  # an attempt begins
            case Checkpoint(step=saved, version=version):
                if (saved, version) in checkpoints:
                    twice.append(f"checkpoint {saved}")
                checkpoints.add((saved, version))
            case Progress(step=reported):
                if reported <= step:
                    twice.append(f"step {reported}")
                step = reported
    return twice


def trained_again(events: Sequence[JobEvent]) -> list[int]:
    """Steps that were reported after a checkpoint of them, or of a later one, was registered."""
    saved, again = 0, []
    for event in events:
        match event.happening:
            case Checkpoint(step=step):
                saved = max(saved, step)
            case Progress(step=step) if step <= saved:
                again.append(step)
    return again
