"""`tuneloom data`: check, upload, list, make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.terminal import JsonOption, out, print_json, print_table

if TYPE_CHECKING:
    from tuneloom_data.contract import ContractReport

app = typer.Typer(help="Check, upload and make training data.", no_args_is_help=True)
synth_app = typer.Typer(help="Generate training data.", no_args_is_help=True)
app.add_typer(synth_app, name="synth")

FileArgument = Annotated[Path, typer.Argument(help="JSON Lines or a JSON array of rows {'messages': […]}.")]


@app.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check every row of a file; bad rows are named by number, field and reason."""
    report = checked(file)
    if as_json:
        from tuneloom_cli import shapes

        print_json(shapes.report(report))
    else:
        _print(report, file)
    if not report.passed:
        raise typer.Exit(1)
    if not as_json:
        out.print(f"Next: [bold]tuneloom data upload {file} --name NAME[/]", soft_wrap=True)


@app.command()
def upload(
    file: FileArgument,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the dataset; default: the file's.")] = "",
) -> None:
    """Check a file and store it as a new, immutable version of a dataset."""
    from tuneloom_cli.artifacts import dataset_id, upload_dataset
    from tuneloom_cli.clients import run

    report = checked(file)
    if not report.passed:
        _print(report, file)
        raise typer.Exit(1)
    version = run(lambda services: upload_dataset(services.registry, name or dataset_id(file), file))
    out.print(f"{version.name}  sha256:{version.digest[:12]}  {report.rows} rows", soft_wrap=True)
    out.print(
        f"Next: [bold]tuneloom jobs submit --base seed --data {version.name.parent} --output NAME[/]", soft_wrap=True
    )


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the datasets."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    datasets = run(lambda services: services.registry.datasets())
    if as_json:
        print_json([shapes.dataset(dataset) for dataset in datasets])
        return
    print_table(
        ("dataset", "versions", "created"),
        ((each.name, str(each.latest_version), f"{each.create_time:%Y-%m-%d %H:%M}") for each in datasets),
    )


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
    from tuneloom_common.errors import InvalidArgument
    from tuneloom_data import synth
    from tuneloom_data.mix import read_mix

    try:
        ordinary = read_mix(mix) if mix else []
        made = synth.self_cognition(
            name=name,
            author=author,
            rows=rows,
            mix=ordinary,
            mix_share=mix_share if ordinary else 0.0,
            seed=seed,
        )
    except ValueError as error:
        raise InvalidArgument(str(error)) from None
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    out.print(f"{output}: {len(made)} rows. Next: [bold]tuneloom data check {output}[/]", soft_wrap=True)


def checked(file: Path) -> ContractReport:
    """The file's report; raises NotFound when there is no such file."""
    from tuneloom_data.contract import check_file

    return check_file(_existing(file))


def _existing(file: Path) -> Path:
    from tuneloom_common.errors import InvalidArgument, NotFound

    if not file.exists():
        raise NotFound(f"{file} does not exist; give a .jsonl or .json file")
    if file.is_dir():
        raise InvalidArgument(f"{file} is a directory; give one .jsonl or .json file")
    return file


def _print(report: ContractReport, file: Path) -> None:
    from rich.markup import escape

    for cause in report.causes:
        out.print(f"[red]✗[/] {escape(str(cause))}", soft_wrap=True)
    if report.unlisted_rows:
        out.print(f"… and {report.unlisted_rows} more")
    if not report.rows:
        if not report.causes:
            out.print(f"[red]✗[/] {file} has no rows", soft_wrap=True)
        return
    share = report.trained_characters / max(1, report.characters)
    good = report.rows - report.bad_rows
    out.print(
        f"{good} of {report.rows} rows are good; {report.trained_turns} answers to learn from, {share:.0%} of the "
        f"text; {report.multi_turn_rows} multi-turn, {report.duplicate_rows} duplicates, {report.unanswered_rows} end "
        "without an answer",
        soft_wrap=True,
    )
