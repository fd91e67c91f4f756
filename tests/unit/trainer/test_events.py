"""The worker's event log, from both ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloom_trainer.events import EventTail
from tuneloom_trainer.training_events import Note, Progress
from tuneloom_trainer.worker.protocol import EventLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def line(seq: int) -> bytes:
    return json.dumps({"seq": seq, "type": "note", "text": "über\u2028"}, ensure_ascii=False).encode() + b"\n"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as log:
        log.write(data)


def seqs(tail: EventTail) -> list[int]:
    return [logged.sequence for logged in tail.read()]


def test_a_log_that_does_not_exist_yet_has_no_events(path: Path) -> None:
    tail = EventTail(path, after=0)

    assert seqs(tail) == []
    append(path, line(1))
    assert seqs(tail) == [1]


def test_a_line_still_being_written_waits(path: Path) -> None:
    tail = EventTail(path, after=0)
    append(path, line(1) + line(2)[:-5])
    assert seqs(tail) == [1]
    assert seqs(tail) == []

    append(path, line(2)[-5:] + line(3))

    assert seqs(tail) == [2, 3]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_wherever_the_writes_are_cut_every_event_comes_once(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cuts") / "events.jsonl"
    data = b"".join(line(seq) for seq in range(1, 9))
    tail, seen = EventTail(path, after=0), []

    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        append(path, data[start:end])
        seen += seqs(tail)

    assert seen == list(range(1, 9))


def test_a_new_tail_goes_on_after_what_was_stored(path: Path) -> None:
    append(path, b"".join(line(seq) for seq in range(1, 6)))

    assert seqs(EventTail(path, after=3)) == [4, 5]
    assert seqs(EventTail(path, after=9)) == []


def test_the_log_counts_on_after_a_restart(path: Path) -> None:
    for _ in range(3):
        log = EventLog(path)
        log.emit(Note(text="Zeile\nzwei\u2028 ✓"))
        log.close()

    events = list(EventTail(path, after=0).read())
    assert [logged.sequence for logged in events] == [1, 2, 3]
    assert events[0].event == Note(text="Zeile\nzwei\u2028 ✓")


@pytest.mark.parametrize("torn", [b"{", line(2)[:-1], "ü".encode()[:1]])
def test_a_torn_last_line_was_never_an_event(path: Path, torn: bytes) -> None:
    log = EventLog(path)
    log.emit(Note(text="whole"))
    log.close()
    tail = EventTail(path, after=0)
    append(path, torn)
    assert seqs(tail) == [1]

    log = EventLog(path)
    log.emit(Note(text="after"))
    log.close()

    assert seqs(tail) == [2]
    assert seqs(EventTail(path, after=0)) == [1, 2]


def test_a_log_that_is_one_torn_line_starts_over(path: Path) -> None:
    append(path, b'{"seq": 1, "ty')

    log = EventLog(path)
    log.emit(Note(text="first"))
    log.close()

    assert seqs(EventTail(path, after=0)) == [1]


def test_numbers_that_are_not_json_are_refused(path: Path) -> None:
    log = EventLog(path)
    with pytest.raises(ValueError, match="finite"):
        log.emit(Progress(step=1, loss=float("nan")))
    log.close()

    assert path.read_bytes() == b""


def test_events_of_another_release_are_read_as_far_as_they_are_known(path: Path) -> None:
    newer = {"seq": 1, "time": 1.5, "type": "progress", "step": 3, "mood": "good"}
    unknown = {"seq": 2, "type": "weather", "sun": True}
    append(path, b"".join(json.dumps(fields).encode() + b"\n" for fields in (newer, unknown)))

    first, second = EventTail(path, after=0).read()

    assert first.event == Progress(step=3)
    assert (second.sequence, second.event) == (2, None)
