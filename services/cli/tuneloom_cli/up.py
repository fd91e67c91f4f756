"""`tuneloom up` and `down`: every service on this machine, each a process of its own, supervised."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.console import out

if TYPE_CHECKING:
    from tuneloom_cli.home import Connection, Home
    from tuneloom_cli.processes import Service

START_SECONDS = 60.0
ENGINE_START_SECONDS = 600.0
RESTART_PAUSE_SECONDS = 1.0
RESTARTS_PER_MINUTE = 5
STOP_GRACE_SECONDS = 30.0


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
    from tuneloom_cli.data import dataset_id
    from tuneloom_cli.home import Home, Ports
    from tuneloom_cli.models import locate
    from tuneloom_cli.processes import seed_directory
    from tuneloom_cli.uploads import model_files
    from tuneloom_common.errors import FailedPrecondition

    home = Home.locate()
    home.logs.mkdir(parents=True, exist_ok=True)
    if (running := running_pid(home)) and not detach:
        raise FailedPrecondition(f"already running in {home.path} (pid {running}); stop it with 'tuneloom down'")
    if detach:
        _detach(home, already_running=running is not None)
        return
    directory = locate(base) if base else seed_directory()
    model_files(directory)
    name = base_name or (dataset_id(Path(base)) if base else "seed")
    ports = Ports(gateway_port, engine_port, registry_port, trainer_port)
    asyncio.run(_supervise(home, home.prepare(ports), directory, name))


def down() -> None:
    """Stop what `up` started here; running jobs save and go on at the next start."""
    from tuneloom_cli.home import Home

    home = Home.locate()
    pid = running_pid(home)
    if pid is None:
        out.print(f"nothing is running in {home.path}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_GRACE_SECONDS
    while running_pid(home) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    out.print("stopped")


def key() -> None:
    """Print the gateway's API key of this installation."""
    from tuneloom_cli.home import Home

    out.print(Home.locate().connection().api_key, soft_wrap=True)


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
        f"'tuneloom down' stops it, logs are in {home.logs}"
    )


async def _supervise(home: Home, connection: Connection, base: Path, base_name: str) -> None:
    import fcntl

    from tuneloom_cli.processes import local_services

    ready = home.path / "ready"
    ready.unlink(missing_ok=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with home.lock_file.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        services = local_services(home, connection)
        check_ports(services)
        keepers = []
        try:
            for service in services:
                keeper = asyncio.create_task(_keep(service, home.logs / f"{service.name}.log"))
                keepers.append(keeper)
                await _answering(service, keeper)
            base_engine = await _offer_base(connection, base, base_name)
            ready.write_text(str(os.getpid()))
            _tell(home, connection)
            warming = asyncio.create_task(_warm(connection.engine_host, base_engine))
            await asyncio.wait({asyncio.create_task(stop.wait()), *keepers}, return_when=asyncio.FIRST_COMPLETED)
            warming.cancel()
        finally:
            ready.unlink(missing_ok=True)
            failed = [keeper.exception() for keeper in keepers if keeper.done() and not keeper.cancelled()]
            for keeper in reversed(keepers):
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
    for error in failed:
        if error is not None:
            raise error


def check_ports(services: list[Service]) -> None:
    """Fails before anything starts when a port is taken, naming it and the option that moves it."""
    import socket

    from tuneloom_common.errors import FailedPrecondition

    taken: dict[int, str] = {}
    for service in services:
        if other := taken.get(service.port):
            raise FailedPrecondition(
                f"port {service.port} is wanted by the {other} and the {service.name}; give one another port with "
                f"{service.setting} PORT",
                reason="PORT_IN_USE",
            )
        taken[service.port] = service.name
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", service.port))
            except OSError:
                raise FailedPrecondition(
                    f"port {service.port}, wanted by the {service.name}, is in use; stop what listens there or start "
                    f"with {service.setting} PORT",
                    reason="PORT_IN_USE",
                ) from None


async def _keep(service: Service, log: Path) -> None:
    """Runs one service, restarting it when it dies; gives up when it keeps dying."""
    from tuneloom_common import children
    from tuneloom_common.errors import FailedPrecondition

    deaths: list[float] = []
    while True:
        process = await children.spawn(service.command, log=log, env=service.environment, inherit=children.Inherit.ALL)
        try:
            status = await process.wait()
        finally:
            await process.stop(grace_seconds=STOP_GRACE_SECONDS)
        now = time.monotonic()
        deaths = [death for death in deaths if now - death < 60] + [now]
        if len(deaths) > RESTARTS_PER_MINUTE or status == 2:
            raise FailedPrecondition(
                f"the {service.name} does not stay up (status {status}); its last words:\n{children.last_lines(log, 8)}"
            )
        out.print(f"the {service.name} died with status {status}; starting it again", style="yellow")
        await asyncio.sleep(RESTART_PAUSE_SECONDS)


async def _answering(service: Service, keeper: asyncio.Task[None]) -> None:
    """Waits until the service accepts connections."""
    from tuneloom_common.errors import Unavailable

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if keeper.done():
            keeper.result()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise Unavailable(f"the {service.name} does not answer on port {service.port} after {START_SECONDS:.0f} s")


async def _offer_base(connection: Connection, directory: Path, name: str) -> str:
    """Stores the base model (nothing is sent when it is there); returns its engine name."""
    import grpc

    from tuneloom_cli.services import connect
    from tuneloom_cli.uploads import upload_base
    from tuneloom_common.grpc import from_rpc_error

    async with connect(connection) as services:
        try:
            version = await upload_base(services, name, directory)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "registry") from None
    out.print(f"base model {name}: {version.size_bytes / 1e6:.1f} MB, engine name {version.engine_name}")
    if "default" not in version.aliases:
        number = version.name.rpartition("/")[2]
        out.print(
            f"{name} still means an older version; [bold]tuneloom models alias {name} default {number}[/] changes that"
        )
    return version.engine_name


async def _warm(engine_host: str, engine_name: str) -> None:
    """Asks for the base's engine now, so that the first chat finds it running."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ENGINE_START_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(engine_host, timeout=timeout) as session,
            session.post(f"/replicas/{engine_name}") as answer,
        ):
            body = await answer.json()
            problem = "" if answer.status == 200 else body.get("error", body)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        problem = str(error)
    if problem:
        out.print(f"no engine for {engine_name}: {problem}", style="yellow", markup=False)
    else:
        out.print(f"engine {engine_name} is ready at {body['url']}")


def _tell(home: Home, connection: Connection) -> None:
    out.print(
        f"[green]✓[/] ready\n"
        f"  gateway   {connection.gateway}/v1   ('tuneloom key' prints the key)\n"
        f"  registry  {connection.registry}\n"
        f"  trainer   {connection.trainer}\n"
        f"  engines   {connection.engine_host}/replicas\n"
        f"  logs      {home.logs}\n"
        f"Next: [bold]tuneloom chat seed[/]"
    )
