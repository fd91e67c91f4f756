"""`tuneloom doctor`: what is installed, which device, which engine, what is missing and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tuneloom_cli.terminal import JsonOption, out, print_json

if TYPE_CHECKING:
    from tuneloom_cli.checks import Finding


def doctor(
    services: Annotated[bool, typer.Option(help="Also ask the running services.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine; exit status 1 when something required is missing."""
    from itertools import chain

    from tuneloom_cli import checks

    if not tell(chain(checks.machine(), checks.services() if services else ()), as_json=as_json):
        raise typer.Exit(1)


def tell(findings: Iterable[Finding], *, as_json: bool) -> bool:
    """Prints findings as they come; False when a required one is not good."""
    told = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in told])
    return all(finding.good or not finding.required for finding in told)


def _print(finding: Finding) -> None:
    mark = "[green]✓[/]" if finding.good else "[red]✗[/]" if finding.required else "[yellow]•[/]"
    out.print(f"{mark} {finding.what}: {escape(finding.details)}", soft_wrap=True)
    if not finding.good:
        out.print(f"    mend: [bold]{escape(finding.mend)}[/]", soft_wrap=True)
