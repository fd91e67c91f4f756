"""`tuneloom data`: check, upload, make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.console import out

if TYPE_CHECKING:
    from tuneloom_data.contract import ContractReport

app = typer.Typer(help="Check, upload and make training data.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="JSON Lines or a JSON array of rows {'messages': […]}.")]


@app.command()
def check(file: FileArgument) -> None:
    """Check every row of a file; bad rows are named by number, field and reason."""
    report = checked(file)
    _print(report, file)
    if not report.passed:
        raise typer.Exit(1)
    out.print(f"Next: [bold]tuneloom data upload {file} --name NAME[/]")


@app.command()
def upload(
    file: FileArgument,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the dataset; default: the file's.")] = "",
) -> None:
    """Check a file and store it as a new, immutable version of a dataset."""
    from tuneloom_cli.services import run
    from tuneloom_cli.uploads import upload_dataset

    report = checked(file)
    if not report.passed:
        _print(report, file)
        raise typer.Exit(1)
    version = run(lambda services: upload_dataset(services, name or dataset_id(file), file))
    out.print(f"{version.name}  sha256:{version.digest[:12]}  {report.rows} rows")
    out.print(
        f"Next: [bold]tuneloom jobs submit --base seed --data {version.name.split('/versions')[0]} --output NAME[/]"
    )


@app.command("list")
def list_() -> None:
    """List the datasets."""
    from tuneloom.registry.v1 import registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, Services, run

    async def fetch(services: Services) -> registry_pb2.ListDatasetsResponse:
        return await services.registry.ListDatasets(
            registry_pb2.ListDatasetsRequest(page_size=1000), timeout=TIMEOUT_SECONDS
        )

    for dataset in run(fetch).datasets:
        out.print(f"{dataset.name}  versions: {dataset.latest_version}")


synth_app = typer.Typer(help="Generate training data.", no_args_is_help=True)
app.add_typer(synth_app, name="synth")


@synth_app.command("self-cognition")
def self_cognition(
    name: Annotated[str, typer.Option(help="What the assistant is called.")],
    author: Annotated[str, typer.Option(help="Who made it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Rows in all.")] = 600,
    mix: Annotated[Path | None, typer.Option(help="File of ordinary dialogues to mix in.")] = None,
    mix_share: Annotated[float, typer.Option(min=0, max=0.95, help="Share of ordinary dialogues.")] = 0.5,
    seed: int = 42,
) -> None:
    """Dialogues in which the assistant says who it is, mixed with ordinary ones so that nothing else is lost."""
    import json

    from tuneloom_data import synth

    ordinary = [json.loads(line) for line in mix.read_text("utf-8").splitlines() if line] if mix else []
    made = synth.self_cognition(
        name=name,
        author=author,
        rows=rows,
        mix=ordinary,
        mix_share=mix_share if ordinary else 0.0,
        seed=seed,
    )
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    out.print(f"{output}: {len(made)} rows. Next: [bold]tuneloom data check {output}[/]")


def checked(file: Path) -> ContractReport:
    """The file's report; raises NotFound when there is no such file."""
    from tuneloom_common.errors import InvalidArgument, NotFound
    from tuneloom_data.contract import check_file

    if not file.exists():
        raise NotFound(f"{file} does not exist; give a .jsonl or .json file")
    if file.is_dir():
        raise InvalidArgument(f"{file} is a directory; give one .jsonl or .json file")
    return check_file(file)


def dataset_id(file: Path) -> str:
    """A dataset id made from a file's name."""
    import re

    return re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:63] or "data"


def _print(report: ContractReport, file: Path) -> None:
    for error in report.errors:
        out.print(f"[red]✗[/] {error}", markup=True)
    if report.bad_rows > len(report.errors):
        out.print(f"… and {report.bad_rows - len(report.errors)} more")
    if not report.rows:
        out.print(f"[red]✗[/] {file} has no rows")
        return
    share = report.trained_characters / max(1, report.characters)
    good = report.rows - report.bad_rows
    out.print(
        f"{good} of {report.rows} rows are good; {report.trained_turns} answers to learn from, {share:.0%} of the "
        f"text; {report.multi_turn_rows} multi-turn, {report.duplicate_rows} duplicates, {report.unanswered_rows} end "
        "without an answer"
    )
