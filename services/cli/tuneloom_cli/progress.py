"""Follows a job: a live bar in a terminal, plain lines elsewhere, and at the end what to do next."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from tuneloom_cli.clients import Services
from tuneloom_cli.terminal import duration, out
from tuneloom_client.job_events import DataReport, JobEvent, Note, SampleChat, StateChanged
from tuneloom_client.jobs import Checkpoint, Job, JobState, Progress
from tuneloom_common.names import DEFAULT_ALIAS, VersionName

# A job of any length is told in about this many lines.
PLAIN_LINES = 50


class View(Protocol):
    """Where a job is shown."""

    def state(self, text: str) -> None:
        """What it is doing now."""

    def progress(self, now: Progress) -> None:
        """How far it is."""

    def line(self, text: str) -> None:
        """Something to keep on the screen, in rich's markup."""


class Bar:
    """One line that changes in place, under the lines that stay."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task = progress.add_task("queued", total=None, figures="")

    def state(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def progress(self, now: Progress) -> None:
        self._progress.update(self._task, total=now.total_steps, completed=now.step, figures=figures(now))

    def line(self, text: str) -> None:
        self._progress.console.print(text)


class PlainLines:
    """Every news is a line, progress each fiftieth of the way."""

    def __init__(self) -> None:
        self._told = -1

    def state(self, text: str) -> None:
        out.print(text, soft_wrap=True)

    def progress(self, now: Progress) -> None:
        share = now.step * PLAIN_LINES // max(1, now.total_steps)
        if share != self._told:
            self._told = share
            out.print(f"step {figures(now)}", soft_wrap=True)

    def line(self, text: str) -> None:
        out.print(text, soft_wrap=True)


def figures(now: Progress) -> str:
    return (
        f"{now.step}/{now.total_steps}  loss {now.loss:.3f}  {now.tokens_per_second:,.0f} tok/s  "
        f"ETA {duration(now.eta_seconds)}"
    )


async def follow(services: Services, name: str) -> Job:
    """Shows a job's events to its end and returns it. Waits out a trainer that restarts, not one that never ran."""
    await services.trainer.job(name)  # a wrong name, or no trainer, is said at once
    bar = _bar()
    with bar or nullcontext():
        view: View = Bar(bar) if bar else PlainLines()
        async for event in services.trainer.watch(name, on_wait=lambda _: view.state("waiting for the trainer")):
            show(view, event)
    job = await services.trainer.job(name)
    await conclude(services, job)
    return job


def show(view: View, event: JobEvent) -> None:
    """One event, in the words of the view."""
    match event.happening:
        case StateChanged(state, reason):
            view.state(state)
            if reason and state is not JobState.FAILED:
                view.line(f"[dim]{state}: {escape(reason)}[/]")
        case Progress() as now:
            view.progress(now)
        case DataReport() as data:
            view.line(
                f"[dim]{data.rows} rows, {data.tokens:,} tokens ({data.trained_tokens / max(1, data.tokens):.0%} "
                f"trained), {data.sequences} sequences, {data.truncated_rows} cut, {data.duplicate_rows} duplicates[/]"
            )
        case SampleChat(step, prompt, answer):
            view.line(f"[dim]step {step}[/]  {escape(prompt)} [bold]→[/] {escape(answer)}")
        case Checkpoint() as point:
            view.line(f"[dim]checkpoint {point.model_name}, loss {point.loss:.3f}[/]")
        case Note(text):
            view.line(f"[dim]{escape(text)}[/]")


async def conclude(services: Services, job: Job) -> None:
    """What came of a job that has ended, and the next step."""
    if job.state is JobState.FAILED:
        out.print(f"[red]✗ {job.error_reason}[/]: {escape(job.error)}", soft_wrap=True)
        out.print(f"Next: [bold]tuneloom jobs logs {job.id}[/] shows what its worker wrote")
    elif job.state is not JobState.SUCCEEDED:
        out.print(f"the job is {job.state}")
    else:
        made = ", ".join(filter(None, (job.result_version, job.merged_version)))
        out.print(f"[green]✓[/] {made}", soft_wrap=True)
        await _next_step(services, job)


async def _next_step(services: Services, job: Job) -> None:
    result = VersionName.parse(job.result_version)
    model = await services.registry.model(result.parent)
    meant = model.aliases.get(DEFAULT_ALIAS)
    made = {VersionName.parse(name).number for name in (job.result_version, job.merged_version) if name}
    if meant in made:
        out.print(f"Next: [bold]tuneloom chat {model.id}[/]")
        return
    out.print(f"Next: [bold]tuneloom chat {model.id}:{result.number}[/]")
    if meant is not None:
        out.print(
            f"{model.id} alone still means version {meant}; "
            f"[bold]tuneloom models alias {model.id} default {result.number}[/] changes that",
            soft_wrap=True,
        )


def _bar() -> RichProgress | None:
    """A live bar where there is a terminal to draw it on."""
    if not out.is_terminal:
        return None
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[figures]}"),
        console=out,
    )
