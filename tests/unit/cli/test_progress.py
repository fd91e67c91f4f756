"""The same news in a terminal and without one."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from tuneloom_cli.progress import Bar, figures, show
from tuneloom_cli.terminal import duration, size
from tuneloom_client.job_events import JobEvent, Note, StateChanged
from tuneloom_client.jobs import JobState, Progress

NOW = Progress(
    step=20, total_steps=160, loss=2.12345, learning_rate=1e-4, tokens_per_second=3300.4, eta_seconds=75, epoch=0.5
)


class Heard:
    """A view that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def state(self, text: str) -> None:
        self.told.append(f"state {text}")

    def progress(self, now: Progress) -> None:
        self.told.append(f"step {now.step}")

    def line(self, text: str) -> None:
        self.told.append(text)


def told(happening: object) -> list[str]:
    from datetime import UTC, datetime

    heard = Heard()
    show(heard, JobEvent(1, datetime.now(UTC), happening))  # type: ignore[arg-type]
    return heard.told


def test_a_reason_is_told_but_for_a_failure_which_ends_the_command() -> None:
    assert told(StateChanged(JobState.QUEUED, "the trainer [was] restarted")) == [
        "state queued",
        "[dim]queued: the trainer \\[was] restarted[/]",
    ]
    assert told(StateChanged(JobState.FAILED, "why")) == ["state failed"]


def test_what_a_newer_trainer_tells_is_passed_over() -> None:
    assert told(None) == []
    assert told(Note("n")) == ["[dim]n[/]"]


def test_figures() -> None:
    assert figures(NOW) == "20/160  loss 2.123  3,300 tok/s  ETA 1:15"
    assert (duration(3723), duration(5)) == ("1:02:03", "0:05")
    assert (size(5_900_000), size(15_200_000_000)) == ("5.9 MB", "15.20 GB")


def test_a_terminal_has_one_line_that_changes() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=20)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[figures]}"))
    progress = RichProgress(*columns, console=console, auto_refresh=False)
    with progress:
        bar = Bar(progress)
        bar.state("running")
        bar.progress(NOW)
        bar.line("[dim]a note[/]")
        progress.refresh()
    shown = screen.getvalue()
    assert "running" in shown
    assert figures(NOW) in shown
    assert "a note" in shown
