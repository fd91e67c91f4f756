"""`tuneloom up` and `down`: every service on this machine, each a process of its own, supervised."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.terminal import out

if TYPE_CHECKING:
    from tuneloom_cli.local.home import Connection, Home

STOP_SECONDS = 60.0
PRIVATE_UMASK = 0o077


def up(
    base: Annotated[str, typer.Option(help="Base model to offer: a Hugging Face model directory or a hub name.")] = "",
    base_name: Annotated[str, typer.Option(help="Its name; default 'seed', or the directory's.")] = "",
    gateway_port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    engine_port: Annotated[int, typer.Option(min=1, max=65535)] = 8010,
    registry_port: Annotated[int, typer.Option(min=1, max=65535)] = 8021,
    trainer_port: Annotated[int, typer.Option(min=1, max=65535)] = 8022,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything answers.")] = False,
) -> None:
    """Start every service on this machine; Ctrl-C stops them. Jobs go on where they were."""
    from tuneloom_cli.artifacts import dataset_id, locate, model_files
    from tuneloom_cli.local.home import Home, Ports
    from tuneloom_cli.local.offering import offer_base, warm
    from tuneloom_cli.local.processes import local_services, seed_directory
    from tuneloom_cli.local.supervision import supervise
    from tuneloom_common.errors import FailedPrecondition

    os.umask(PRIVATE_UMASK)
    home = Home.locate()
    home.make_private()
    if (running := running_pid(home)) and not detach:
        raise FailedPrecondition(f"already running in {home.path} (pid {running}); stop it with 'tuneloom down'")
    if detach:
        _detach(home, already_running=running is not None)
        return
    directory = locate(base) if base else seed_directory()
    model_files(directory)
    name = base_name or (dataset_id(Path(base)) if base else "seed")
    ports = Ports(gateway_port, engine_port, registry_port, trainer_port)
    connection = home.prepare(ports)

    async def offer(ready: Callable[[], object]) -> None:
        engine = await offer_base(connection, directory, name)
        ready()
        _tell(home, connection)
        await warm(connection, engine)

    asyncio.run(supervise(home, local_services(home, connection), offer))


def down() -> None:
    """Stop what `up` started here; running jobs save and go on at the next start."""
    from tuneloom_cli.local.home import Home

    home = Home.locate()
    pid = running_pid(home)
    if pid is None:
        out.print(f"nothing is running in {home.path}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_pid(home) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    if running_pid(home) is not None:
        out.print(f"[yellow]still stopping[/] after {STOP_SECONDS:.0f} s (pid {pid}); {home.logs}/up.log tells why")
        raise typer.Exit(1)
    out.print("stopped")


def running_pid(home: Home) -> int | None:
    """The process that holds this home's lock."""
    import fcntl

    try:
        with home.lock_file.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def _detach(home: Home, *, already_running: bool) -> None:
    """Starts `up` in the background with the same options and waits until it says it is ready."""
    import subprocess

    from tuneloom_common.children import last_lines
    from tuneloom_common.errors import FailedPrecondition

    log, ready = home.logs / "up.log", home.path / "ready"
    process = None
    if not already_running:
        ready.unlink(missing_ok=True)
        arguments = [argument for argument in sys.argv[1:] if argument not in ("--detach", "-d")]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuneloom_cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    while not ready.exists():
        if process is not None and process.poll() is not None:
            said = last_lines(log, 8) or "the services did not start"
            raise FailedPrecondition(said.partition("error: ")[2] or said)
        if process is None and running_pid(home) is None:
            raise FailedPrecondition(f"what was starting in {home.path} is gone; {log} and its neighbours say why")
        time.sleep(0.1)
    state = "was running already, as it was started," if already_running else "running"
    out.print(
        f"{state} in {home.path}, gateway {home.connection().gateway}/v1; "
        f"'tuneloom down' stops it, logs are in {home.logs}",
        soft_wrap=True,
    )


def _tell(home: Home, connection: Connection) -> None:
    out.print(
        f"[green]✓[/] ready\n"
        f"  gateway   {connection.gateway}/v1   ('tuneloom key' prints the key)\n"
        f"  registry  {connection.registry}   (gRPC; 'tuneloom key --grpc' prints the token)\n"
        f"  trainer   {connection.trainer}   (gRPC, the same token)\n"
        f"  engines   {connection.engine_host}/replicas\n"
        f"  logs      {home.logs}\n"
        f"Next: [bold]tuneloom chat seed[/]",
        soft_wrap=True,
    )
