"""`tuneloom key`: what to send to this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneloom_cli.terminal import out


def key(
    grpc: Annotated[bool, typer.Option("--grpc", help="The token for registry and trainer instead.")] = False,
) -> None:
    """Print the gateway's API key of this installation; send it as 'authorization: Bearer KEY'."""
    from tuneloom_cli.cluster import connection

    found = connection()
    out.print(found.service_token if grpc else found.api_key, soft_wrap=True, markup=False)
