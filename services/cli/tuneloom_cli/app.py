"""The `tuneloom` command. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import sys

import typer

from tuneloom_cli import chat, data, doctor, jobs, models, up
from tuneloom_cli.console import errors

app = typer.Typer(
    help="Tuneloom: from raw conversations to a served model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("key")(up.key)
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.command("chat")(chat.chat)
app.command("doctor")(doctor.doctor)


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
