"""`tuneloom secrets`: the keys of a deployment in containers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloom_cli.terminal import out

LOOPBACK_HOME = "loopback"


def secrets(
    directory: Annotated[Path, typer.Argument(help="Where to: a directory per service, a file per setting.")],
    gateway: Annotated[str, typer.Option(help="URL of the gateway.")] = "http://gateway:8000",
    engine_host: Annotated[str, typer.Option(help="URL of the engine host.")] = "http://engine:8010",
    registry: Annotated[str, typer.Option(help="host:port of the registry.")] = "registry:8021",
    trainer: Annotated[str, typer.Option(help="host:port of the trainer.")] = "trainer:8022",
    published: Annotated[
        str, typer.Option(help="Ports of gateway, registry and trainer on the machine's loopback, with commas.")
    ] = "8000,8021,8022",
    postgres: Annotated[str, typer.Option(help="host:port of the deployment's PostgreSQL.")] = "",
    s3: Annotated[bool, typer.Option("--s3", help="Make a key pair for an S3 server of the deployment.")] = False,
) -> None:
    """Make the secrets of a deployment from the keys of this home, which are made on first use; what exists is kept.

    Services read their directory through TUNELOOM_SECRETS_DIR. `loopback/connection.json` in this home is for commands
    on the machine that publishes the ports.
    """
    from dataclasses import asdict

    from tuneloom_cli.deployment import Backends, write_secrets
    from tuneloom_cli.local.home import Addresses, Home, Ports, stored
    from tuneloom_common.errors import InvalidArgument

    ports = published.split(",")
    if len(ports) != 3 or not all(port.isdigit() for port in ports):
        raise InvalidArgument(f"--published {published!r}: must be three ports, such as 8000,8021,8022")
    home = Home.locate()
    connection = home.connect_to(Addresses(gateway, engine_host, registry, trainer))
    written = write_secrets(directory, connection, Backends(postgres, s3))
    outside = Addresses.on_loopback(Ports(int(ports[0]), registry=int(ports[1]), trainer=int(ports[2])))
    Home(home.path / LOOPBACK_HOME).keep({**stored(connection), **asdict(outside)})
    out.print(f"{len(written)} secrets written to {directory}" if written else f"{directory} is up to date")
