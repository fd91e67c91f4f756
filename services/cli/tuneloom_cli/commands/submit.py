"""`tuneloom jobs submit`: from a dataset, or a file, to a queued job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.terminal import JsonOption, out, print_json

if TYPE_CHECKING:
    from tuneloom_cli.clients import Services
    from tuneloom_client.jobs import Job


def submit(
    data: Annotated[str, typer.Option("--data", "-d", help="A dataset, or a file to check and upload first.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Model that receives the result.")],
    base: Annotated[str, typer.Option("--base", "-b", help="Base model.")] = "seed",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="See 'tuneloom jobs recipes'.")] = "qlora",
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Override: learning_rate=1e-4, lora.r=8, …")
    ] = None,
    sample: Annotated[list[str] | None, typer.Option(help="Prompt to answer at every checkpoint.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Also merge into the base and prove it.")] = False,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Let the output model's name mean the result on success.")
    ] = True,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")] = False,
    check_only: Annotated[bool, typer.Option("--check", help="Only check, submit nothing.")] = False,
    request_id: Annotated[str, typer.Option(help="The same id returns the same job.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Submit a training job."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run
    from tuneloom_cli.options import parse_overrides
    from tuneloom_cli.progress import follow
    from tuneloom_client.jobs import JobRequest

    spec = parse_overrides(set_ or (), sample or ())

    async def create(services: Services) -> Job:
        dataset = await _dataset(services, data)
        model = output if output.startswith("models/") else f"models/{output}"
        wanted = JobRequest(base, dataset, model, recipe, spec, merge, promote)
        if check_only:
            return await services.trainer.check_job(wanted)
        job = await services.trainer.create_job(wanted, request_id=request_id)
        if not as_json:
            out.print(f"{job.id}  {job.base_model} + {job.dataset} -> {job.output_model}", soft_wrap=True)
        return await follow(services, job.name) if watch and not as_json else job

    job = run(create)
    if as_json:
        print_json(shapes.job(job))
    elif check_only:
        out.print("The job would be accepted.")
    elif not watch:
        out.print(f"Next: [bold]tuneloom jobs watch {job.id}[/]")
    exit_by_state(job)


async def _dataset(services: Services, data: str) -> str:
    """The dataset's resource name, after uploading when a file was given."""
    if data.startswith("datasets/"):
        return data
    file = Path(data)
    if file.suffix not in (".jsonl", ".json") and not file.exists():
        return f"datasets/{data}"
    from tuneloom_cli.artifacts import dataset_id, upload_dataset
    from tuneloom_cli.commands.data import checked
    from tuneloom_common.errors import InvalidArgument

    report = checked(file)
    if not report.passed:
        raise InvalidArgument(f"{file}: {report.summary()}; 'tuneloom data check {file}' lists them")
    return str((await upload_dataset(services.registry, dataset_id(file), file)).name)


def exit_by_state(job: Job) -> None:
    """A job that ended without its result must not look like success to a script."""
    from tuneloom_client.jobs import JobState

    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise typer.Exit(1)
