"""The `tuneloom` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tuneloom_cli.commands import chat, data, doctor, jobs, key, models, secrets
from tuneloom_cli.local import up
from tuneloom_cli.terminal import errors, out

app = typer.Typer(
    help="Tuneloom: from raw conversations to a served model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("key")(key.key)
app.command("secrets")(secrets.secrets)
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.command("chat")(chat.chat)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"tuneloom {version('tuneloom-cli')}")
        raise typer.Exit


@app.callback()
def tuneloom(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Tuneloom: from raw conversations to a served model."""


def main() -> None:
    """Runs the command; an error meant for the user is one sentence on stderr and exit status 1."""
    from tuneloom_common.errors import TuneloomError

    try:
        app()
    except TuneloomError as error:
        errors.print(f"[bold red]error:[/] {_escaped(error.message)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
