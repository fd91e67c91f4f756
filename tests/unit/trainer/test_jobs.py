"""The state machine: every state has its place, final ones stay."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.trainer.conftest import CreateJob
from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.queue import LeaseLost
from tuneloom_trainer.jobs import LEASED, MOVES, JobState
from tuneloom_trainer.store import JobQueue, JobStore

FINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def test_every_state_is_in_the_table_and_on_the_wire() -> None:
    on_the_wire = {name.removeprefix("JOB_STATE_").lower() for name, _ in jobs_pb2.JobState.items()}

    assert set(MOVES) == set(JobState)
    assert on_the_wire == {"unspecified", *JobState}


def test_exactly_the_final_states_lead_nowhere() -> None:
    assert {state for state in JobState if state.final} == FINAL
    assert all(not state.leased for state in FINAL)


def test_every_state_can_be_reached_and_every_job_can_end() -> None:
    def reachable(start: JobState) -> set[JobState]:
        found = {start}
        while more := set().union(*(MOVES[state] for state in found)) - found:
            found |= more
        return found

    assert reachable(JobState.QUEUED) == set(JobState)
    assert all(reachable(state) & FINAL for state in JobState)


def test_only_a_claim_leads_into_the_leased_states() -> None:
    entrances = {(a, b) for a, b in itertools.product(JobState, LEASED) if b in MOVES[a] and a not in LEASED}

    assert entrances == {(JobState.QUEUED, JobState.VALIDATING)}


async def in_state(state: JobState, store: JobStore, queue: JobQueue, create: CreateJob) -> str:
    """A job brought into a state the way a runner and clients would."""
    job = await create()
    if state is JobState.QUEUED:
        return job.id
    if state is JobState.PAUSED:
        await store.request_pause(job.id)
        return job.id
    claimed = await queue.claim()
    assert claimed is not None
    if state is JobState.VALIDATING:
        return job.id
    await queue.enter_running(claimed)
    if state in (JobState.PAUSING,):
        await store.request_pause(job.id)
    elif state in (JobState.CANCELLING, JobState.CANCELLED):
        await store.request_cancel(job.id)
    if state.final:
        await queue.finish(claimed, state)
    return job.id


@pytest.mark.parametrize("state", JobState)
async def test_a_cancel_is_accepted_until_the_job_has_ended(
    state: JobState, store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    job_id = await in_state(state, store, queue, create)

    if state in (JobState.SUCCEEDED, JobState.FAILED):
        with pytest.raises(FailedPrecondition, match="too late to cancel"):
            await store.request_cancel(job_id)
    else:
        job = await store.request_cancel(job_id)
        idle = state in (JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED)
        assert job.state is (JobState.CANCELLED if idle else JobState.CANCELLING)
        assert (job.end_time is not None) == idle


@pytest.mark.parametrize("state", JobState)
async def test_a_pause_is_accepted_while_there_is_something_to_pause(
    state: JobState, store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    job_id = await in_state(state, store, queue, create)

    if state in FINAL | {JobState.CANCELLING}:
        with pytest.raises(FailedPrecondition, match="too late to pause"):
            await store.request_pause(job_id)
    else:
        idle = state in (JobState.QUEUED, JobState.PAUSED)
        assert (await store.request_pause(job_id)).state is (JobState.PAUSED if idle else JobState.PAUSING)


@pytest.mark.parametrize("state", JobState)
async def test_only_a_paused_job_resumes(state: JobState, store: JobStore, queue: JobQueue, create: CreateJob) -> None:
    job_id = await in_state(state, store, queue, create)

    if state is JobState.PAUSED:
        assert (await store.resume(job_id)).state is JobState.QUEUED
    else:
        with pytest.raises(FailedPrecondition, match="only a paused job"):
            await store.resume(job_id)
        assert (await store.get(job_id)).state is state


@pytest.mark.parametrize("state", [state for state in JobState if state.leased])
async def test_a_runner_moves_a_job_only_along_the_table(
    state: JobState, store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    requested = {JobState.PAUSING: JobState.PAUSED, JobState.CANCELLING: JobState.CANCELLED}
    for target in JobState:
        job = await store.get(await in_state(state, store, queue, create))

        if target in MOVES[state] or state in requested:  # what a client asked for wins over anything else
            await queue.finish(job, target)
            expected = target if target in MOVES[state] else requested[state]
        else:
            with pytest.raises(FailedPrecondition, match=f"from {state} to {target}"):
                await queue.finish(job, target)
            expected = state

        assert (await store.get(job.id)).state is expected
        if expected in (JobState.QUEUED, *LEASED):
            await queue.finish(await queue.claim() or job, JobState.FAILED)  # out of the way of the next


@pytest.mark.parametrize("state", [state for state in JobState if not state.leased])
async def test_a_runner_moves_no_job_it_does_not_hold(
    state: JobState, store: JobStore, queue: JobQueue, create: CreateJob
) -> None:
    job = await store.get(await in_state(state, store, queue, create))

    for target in JobState:
        with pytest.raises(LeaseLost):
            await queue.finish(job, target)

    assert await store.get(job.id) == job
