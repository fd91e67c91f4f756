"""`tuneloom jobs`: submit, list, show, watch, pause, resume, cancel, checkpoints, logs, recipes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.commands.submit import exit_by_state, submit
from tuneloom_cli.terminal import JsonOption, duration, out, print_json, print_table, write

if TYPE_CHECKING:
    from tuneloom_client.jobs import Job
    from tuneloom_client.trainer import TrainerClient

app = typer.Typer(help="Submit and follow training jobs.", no_args_is_help=True)
app.command()(submit)
JobArgument = Annotated[str, typer.Argument(help="Job, for example job-4k2m9x7q.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    jobs = run(lambda services: services.trainer.jobs(at_most=limit))
    if as_json:
        print_json([shapes.job(job) for job in jobs])
        return
    print_table(
        ("job", "state", "base", "output", "step", "loss", "result"),
        (
            (
                job.id,
                job.state,
                job.base_model,
                job.output_model.partition("/")[2],
                f"{job.progress.step}/{job.progress.total_steps}" if job.progress else "-",
                f"{job.progress.loss:.3f}" if job.progress else "-",
                job.result_version or job.error_reason,
            )
            for job in jobs
        ),
    )


@app.command()
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job: where it is, what came of it, every option."""
    from tuneloom_cli.clients import run

    found = run(lambda services: services.trainer.job(_name(job)))
    if as_json:
        _print_job(found)
    else:
        _describe(found)


@app.command()
def watch(job: JobArgument) -> None:
    """Follow a job: progress, loss, tokens/s, ETA, sample chats. Ends with it; Ctrl-C leaves it running."""
    from tuneloom_cli.clients import run
    from tuneloom_cli.progress import follow

    exit_by_state(run(lambda services: follow(services, _name(job))))


@app.command()
def logs(
    job: JobArgument,
    max_bytes: Annotated[int, typer.Option(min=1, max=1 << 20, help="From the end.")] = 64 << 10,
) -> None:
    """Print the end of what a job's worker wrote: its own words, the libraries' and tracebacks."""
    from tuneloom_cli.clients import run
    from tuneloom_cli.terminal import errors

    tail = run(lambda services: services.trainer.log(_name(job), max_bytes=max_bytes))
    if tail.truncated:
        errors.print("[dim]… there is more before this; --max-bytes shows it[/]")
    if not tail.text:
        errors.print(f"{job} has no log here: its worker has not started, or ran on another machine")
    write(tail.text)


@app.command()
def cancel(job: JobArgument) -> None:
    """Stop a job for good; its registered checkpoints stay."""
    _ask(lambda trainer: trainer.cancel(_name(job)))


@app.command()
def pause(job: JobArgument) -> None:
    """Save a checkpoint and stop until resumed."""
    _ask(lambda trainer: trainer.pause(_name(job)))


@app.command()
def resume(job: JobArgument) -> None:
    """Continue a paused job from its newest checkpoint."""
    _ask(lambda trainer: trainer.resume(_name(job)))


@app.command()
def checkpoints(job: JobArgument, as_json: JsonOption = False) -> None:
    """List a job's checkpoints; each can be chatted with."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    found = run(lambda services: services.trainer.checkpoints(_name(job)))
    if as_json:
        print_json([shapes.checkpoint(checkpoint) for checkpoint in found])
        return
    rows = ((point.model_name, str(point.step), f"{point.loss:.3f}", point.version) for point in found)
    print_table(("model", "step", "loss", "version"), rows)


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """Show the recipes with every option and its default."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run
    from tuneloom_cli.options import spec_options

    found = run(lambda services: services.trainer.recipes())
    if as_json:
        print_json([shapes.recipe(recipe) for recipe in found])
        return
    for recipe in found:
        out.print(f"[bold]{recipe.name}[/]  {recipe.description}", soft_wrap=True)
        _print_options(spec_options(recipe.spec))


def _describe(job: Job) -> None:
    from tuneloom_cli.options import spec_options
    from tuneloom_cli.progress import figures

    lines = [
        ("state", job.state + (f" ({job.error_reason})" if job.error_reason else "")),
        ("error", job.error),
        ("base", job.base_model),
        ("data", job.dataset),
        ("output", job.output_model.partition("/")[2] + (", merged and proven" if job.merge else "")),
        ("result", job.result_version),
        ("merged", job.merged_version),
        ("progress", figures(job.progress) if job.progress else ""),
        ("created", f"{job.create_time:%Y-%m-%d %H:%M:%S} UTC"),
        ("took", duration((job.end_time - job.create_time).total_seconds()) if job.end_time else ""),
        ("attempts", str(job.attempt)),
        ("recipe", job.recipe),
    ]
    out.print(f"[bold]{job.id}[/]")
    for name, value in lines:
        if value:
            out.print(f"  {name:<9} {value}", markup=False, soft_wrap=True)
    _print_options(spec_options(job.spec))


def _print_options(options: dict[str, object], prefix: str = "") -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            _print_options(value, f"{prefix}{name}.")
        else:
            out.print(f"  {prefix}{name} = {value}", markup=False, soft_wrap=True)


def _ask(verb: Callable[[TrainerClient], Awaitable[Job]]) -> None:
    from tuneloom_cli.clients import run

    job = run(lambda services: verb(services.trainer))
    out.print(f"{job.id} is {job.state}")


def _print_job(job: Job) -> None:
    from tuneloom_cli import shapes

    print_json(shapes.job(job))


def _name(job: str) -> str:
    return job if job.startswith("trainingJobs/") else f"trainingJobs/{job}"
