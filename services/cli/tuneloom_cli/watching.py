"""Follows a job in the terminal: a live progress bar, sample chats, and what to do next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_cli.console import out
from tuneloom_cli.services import TIMEOUT_SECONDS
from tuneloom_common.grpc import from_rpc_error

if TYPE_CHECKING:
    from tuneloom_cli.services import Services

RECONNECT_SECONDS = 1.0
PATIENCE_SECONDS = 120.0


def state_name(state: int) -> str:
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()  # type: ignore[arg-type]


async def follow(services: Services, name: str) -> jobs_pb2.TrainingJob:
    """Prints a job's events to its end and returns it. Reconnects from the last event seen."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[figures]}"),
        console=out,
    ) as bar:
        task = bar.add_task("queued", total=None, figures="")
        seen, waited = 0, 0.0
        while True:
            try:
                request = trainer_pb2.WatchTrainingJobRequest(name=name, after_sequence=seen)
                async for event in services.trainer.WatchTrainingJob(request):
                    seen, waited = event.sequence, 0.0
                    _show(bar, task, event)
                break
            except grpc.aio.AioRpcError as error:
                lost = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                if not lost or waited >= PATIENCE_SECONDS:
                    raise from_rpc_error(error, "trainer") from None
            bar.update(task, description="waiting for the trainer")
            await asyncio.sleep(RECONNECT_SECONDS)
            waited += RECONNECT_SECONDS
    job = await services.trainer.GetTrainingJob(trainer_pb2.GetTrainingJobRequest(name=name), timeout=TIMEOUT_SECONDS)
    _conclude(job)
    return job


def _show(bar: Progress, task: TaskID, event: trainer_pb2.TrainingJobEvent) -> None:
    match event.WhichOneof("event"):
        case "state_changed":
            change = event.state_changed
            bar.update(task, description=state_name(change.state))
            if change.reason and change.state != jobs_pb2.JOB_STATE_FAILED:
                bar.console.print(f"[dim]{state_name(change.state)}: {escape(change.reason)}[/]")
        case "progress":
            now = event.progress
            figures = (
                f"{now.step}/{now.total_steps}  loss {now.loss:.3f}  {now.tokens_per_second:,.0f} tok/s  "
                f"ETA {_duration(now.eta_seconds)}"
            )
            bar.update(task, total=now.total_steps, completed=now.step, figures=figures)
        case "data_report":
            data = event.data_report
            bar.console.print(
                f"[dim]{data.rows} rows, {data.tokens:,} tokens ({data.trained_tokens / max(1, data.tokens):.0%} "
                f"trained), {data.sequences} sequences, {data.truncated_rows} cut, {data.duplicate_rows} duplicates[/]"
            )
        case "sample_chat":
            chat = event.sample_chat
            bar.console.print(f"[dim]step {chat.step}[/]  {escape(chat.prompt)} [bold]→[/] {escape(chat.answer)}")
        case "checkpoint":
            point = event.checkpoint
            bar.console.print(f"[dim]checkpoint {point.model_name}, loss {point.loss:.3f}[/]")
        case "note":
            bar.console.print(f"[dim]{escape(event.note.text)}[/]")


def _conclude(job: jobs_pb2.TrainingJob) -> None:
    if job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
        model = job.output_model.partition("/")[2]
        out.print(f"[green]✓[/] {job.result_version}" + (f", {job.merged_version}" if job.merged_version else ""))
        number = job.result_version.rpartition("/")[2]
        out.print(f"Next: [bold]tuneloom chat {model}:{number}[/]")
        if number != "1":
            out.print(f"{model} alone still means its default; [bold]tuneloom models alias {model} default {number}[/]")
    elif job.state == jobs_pb2.JOB_STATE_FAILED:
        out.print(f"[red]✗ {job.error_reason}[/]: {escape(job.error)}")
    else:
        out.print(f"the job is {state_name(job.state)}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
