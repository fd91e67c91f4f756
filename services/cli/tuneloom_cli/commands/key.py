"""`tuneloom key`: what to send to this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneloom_cli.terminal import out


def key(
    grpc: Annotated[bool, typer.Option("--grpc", help="The token for registry and trainer instead.")] = False,
) -> None:
    """Print the gateway's API key of this installation; send it as 'authorization: Bearer KEY'."""
    from tuneloom_cli.local.home import Home

    connection = Home.locate().connection()
    out.print(connection.service_token if grpc else connection.api_key, soft_wrap=True, markup=False)
