"""`tuneloom jobs`: submit, list, watch, pause, resume, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.console import out

if TYPE_CHECKING:
    from tuneloom.trainer.v1.jobs_pb2 import TrainingJob
    from tuneloom_cli.services import Services

app = typer.Typer(help="Submit and follow training jobs.", no_args_is_help=True)
JobArgument = Annotated[str, typer.Argument(help="Job, for example job-4k2m9x7q.")]


@app.command()
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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")] = False,
    check_only: Annotated[bool, typer.Option("--check", help="Only check, submit nothing.")] = False,
    request_id: Annotated[str, typer.Option(help="The same id returns the same job.")] = "",
) -> None:
    """Submit a training job."""
    from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
    from tuneloom_cli.options import parse_overrides
    from tuneloom_cli.services import TIMEOUT_SECONDS, run
    from tuneloom_cli.watching import follow

    spec = parse_overrides(set_ or (), sample or ())

    async def create(services: Services) -> TrainingJob:
        request = trainer_pb2.CreateTrainingJobRequest(
            training_job=jobs_pb2.TrainingJob(
                base_model=base,
                dataset=await _dataset(services, data),
                output_model=output if output.startswith("models/") else f"models/{output}",
                recipe=recipe,
                spec=spec,
                merge=merge,
            ),
            request_id=request_id,
            validate_only=check_only,
        )
        job = await services.trainer.CreateTrainingJob(request, timeout=TIMEOUT_SECONDS)
        if check_only:
            out.print("The job would be accepted.")
        else:
            out.print(f"{job.name.partition('/')[2]}  {job.base_model} + {job.dataset} -> {job.output_model}")
            if watch:
                return await follow(services, job.name)
            out.print(f"Next: [bold]tuneloom jobs watch {job.name.partition('/')[2]}[/]")
        return job

    _exit_by_state(run(create))


async def _dataset(services: Services, data: str) -> str:
    """The dataset's resource name, after uploading when a file was given."""
    if data.startswith("datasets/"):
        return data
    file = Path(data)
    if file.suffix not in (".jsonl", ".json") and not file.exists():
        return f"datasets/{data}"
    from tuneloom_cli.data import checked, dataset_id
    from tuneloom_cli.uploads import upload_dataset
    from tuneloom_common.errors import InvalidArgument

    report = checked(file)
    if not report.passed:
        raise InvalidArgument(f"{file}: {report.summary()}; 'tuneloom data check {file}' lists them")
    return (await upload_dataset(services, dataset_id(file), file)).name


@app.command("list")
def list_() -> None:
    """List the newest jobs."""
    from rich.table import Table

    from tuneloom.trainer.v1 import trainer_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run
    from tuneloom_cli.watching import state_name

    async def fetch(services: Services) -> trainer_pb2.ListTrainingJobsResponse:
        return await services.trainer.ListTrainingJobs(trainer_pb2.ListTrainingJobsRequest(), timeout=TIMEOUT_SECONDS)

    table = Table("job", "state", "base", "output", "step", "loss", "result", box=None)
    for job in run(fetch).training_jobs:
        progress = job.progress
        table.add_row(
            job.name.partition("/")[2],
            state_name(job.state),
            job.base_model,
            job.output_model.partition("/")[2],
            f"{progress.step}/{progress.total_steps}" if progress.total_steps else "",
            f"{progress.loss:.3f}" if progress.total_steps else "",
            job.result_version or job.error[:60],
        )
    out.print(table)


@app.command()
def watch(job: JobArgument) -> None:
    """Follow a job: progress, loss, tokens/s, ETA, sample chats. Ends with it; Ctrl-C leaves it running."""
    from tuneloom_cli.services import run
    from tuneloom_cli.watching import follow

    _exit_by_state(run(lambda services: follow(services, _name(job))))


@app.command()
def cancel(job: JobArgument) -> None:
    """Stop a job for good; its registered checkpoints stay."""
    from tuneloom.trainer.v1 import trainer_pb2

    _ask("CancelTrainingJob", trainer_pb2.CancelTrainingJobRequest(name=_name(job)))


@app.command()
def pause(job: JobArgument) -> None:
    """Save a checkpoint and stop until resumed."""
    from tuneloom.trainer.v1 import trainer_pb2

    _ask("PauseTrainingJob", trainer_pb2.PauseTrainingJobRequest(name=_name(job)))


@app.command()
def resume(job: JobArgument) -> None:
    """Continue a paused job from its newest checkpoint."""
    from tuneloom.trainer.v1 import trainer_pb2

    _ask("ResumeTrainingJob", trainer_pb2.ResumeTrainingJobRequest(name=_name(job)))


@app.command()
def checkpoints(job: JobArgument) -> None:
    """List a job's checkpoints; each can be chatted with."""
    from tuneloom.trainer.v1 import trainer_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run

    async def fetch(services: Services) -> trainer_pb2.ListCheckpointsResponse:
        return await services.trainer.ListCheckpoints(
            trainer_pb2.ListCheckpointsRequest(parent=_name(job)), timeout=TIMEOUT_SECONDS
        )

    for checkpoint in run(fetch).checkpoints:
        out.print(f"{checkpoint.model_name}  loss {checkpoint.loss:.3f}  {checkpoint.version}")


@app.command()
def recipes() -> None:
    """Show the recipes with every option and its default."""
    from google.protobuf.json_format import MessageToDict

    from tuneloom.trainer.v1 import trainer_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run

    async def fetch(services: Services) -> trainer_pb2.ListRecipesResponse:
        return await services.trainer.ListRecipes(trainer_pb2.ListRecipesRequest(), timeout=TIMEOUT_SECONDS)

    for recipe in run(fetch).recipes:
        out.print(f"[bold]{recipe.name}[/]  {recipe.description}")
        recipe.spec.ClearField("method")  # tuning, under its older name
        for key, value in MessageToDict(recipe.spec, preserving_proto_field_name=True).items():
            nested = value.items() if isinstance(value, dict) else ()
            for inner, setting in nested:
                out.print(f"  {key}.{inner} = {setting}")
            if not nested:
                out.print(f"  {key} = {str(value).removeprefix(f'{key.upper()}_').lower()}")


def _ask(verb: str, request: object) -> None:
    from tuneloom_cli.services import TIMEOUT_SECONDS, run
    from tuneloom_cli.watching import state_name

    async def call(services: Services) -> TrainingJob:
        answer: TrainingJob = await getattr(services.trainer, verb)(request, timeout=TIMEOUT_SECONDS)
        return answer

    job = run(call)
    out.print(f"{job.name.partition('/')[2]} is {state_name(job.state)}")


def _name(job: str) -> str:
    return job if job.startswith("trainingJobs/") else f"trainingJobs/{job}"


def _exit_by_state(job: TrainingJob) -> None:
    """A job that ended without its result must not look like success to a script."""
    from tuneloom.trainer.v1 import jobs_pb2

    if job.state in (jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED):
        raise typer.Exit(1)
