"""What the chaos runs look up at the end sees what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tests.chaos.verdict import told_twice, trained_again
from tuneloom_client.job_events import Happening, JobEvent, StateChanged
from tuneloom_client.jobs import Checkpoint, JobState, Progress

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ATTEMPT = StateChanged(JobState.VALIDATING, "")


def step(number: int) -> Progress:
    return Progress(number, 9, 1.0, 0.1, 1.0, 1.0, 1.0)


def saved(number: int, version: str = "v") -> Checkpoint:
    return Checkpoint(f"c/{number}", number, version, 1.0, "m", NOW)


def events(*happenings: Happening) -> list[JobEvent]:
    return [JobEvent(number, NOW, each) for number, each in enumerate(happenings, start=1)]


@pytest.mark.parametrize(
    ("told", "twice", "again"),
    [
        ([ATTEMPT, step(1), step(2), saved(2), step(3)], [], []),
        ([ATTEMPT, step(1), step(2), ATTEMPT, step(1), step(2), saved(2)], [], []),
        ([ATTEMPT, step(1), step(1)], ["step 1"], []),
        ([ATTEMPT, step(2), saved(2), saved(2)], ["checkpoint 2"], []),
        ([ATTEMPT, step(2), saved(2), ATTEMPT, step(2), step(3)], [], [2]),
    ],
)
def test_doubled_events_and_repeated_work_are_seen(
    told: Sequence[Happening], twice: list[str], again: list[int]
) -> None:
    assert told_twice(events(*told)) == twice
    assert trained_again(events(*told)) == again
