"""Keeps the processes of an installation running until it is asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tuneloom_cli.local.home import Home
from tuneloom_cli.local.processes import Service
from tuneloom_cli.terminal import out
from tuneloom_common import children
from tuneloom_common.errors import FailedPrecondition, Unavailable

START_SECONDS = 60.0
RESTART_PAUSE_SECONDS = 1.0
RESTARTS_PER_MINUTE = 5
RESTARTS_VARIABLE = "TUNELOOM_UP_RESTARTS_PER_MINUTE"
"""For tests that kill services faster than anything in use does."""
STOP_GRACE_SECONDS = 30.0
BAD_SETTINGS = 2
Work = Callable[[Callable[[], object]], Coroutine[None, None, None]]


async def supervise(home: Home, services: list[Service], work: Work) -> None:
    """Starts the services, then the work, and returns after SIGTERM or SIGINT.

    `work` gets a function to call when the installation is ready; when it fails, everything ends with its error.
    """
    ready = home.path / "ready"
    ready.unlink(missing_ok=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _locked(home):
        check_ports(services)
        try:
            async with _kept(services, home.logs) as keepers:
                await _until_ended(stop, keepers, work(lambda: ready.write_text(str(os.getpid()))))
        finally:
            ready.unlink(missing_ok=True)


async def _until_ended(
    stop: asyncio.Event, keepers: list[asyncio.Task[None]], work: Coroutine[None, None, None]
) -> None:
    """Until a stop is asked for, a service has ended for good, or the work has failed."""
    ends = {asyncio.create_task(stop.wait()), *keepers}
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    """Marks this process as the one that runs the home."""
    import fcntl

    with home.lock_file.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@asynccontextmanager
async def _kept(services: list[Service], logs: Path) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Starts the services one after the other and stops them in reverse; raises what ended one of them for good."""
    keepers: list[asyncio.Task[None]] = []
    try:
        for service in services:
            keepers.append(asyncio.create_task(keep(service, logs / f"{service.name}.log")))
            await answering(service, keepers[-1])
        yield keepers
    finally:
        failed = [keeper.exception() for keeper in keepers if keeper.done() and not keeper.cancelled()]
        for keeper in reversed(keepers):
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
    for error in failed:
        if error is not None:
            raise error


def check_ports(services: list[Service]) -> None:
    """Fails before anything starts when a port is taken, naming it and the option that moves it."""
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


async def keep(service: Service, log: Path, *, pause_seconds: float = RESTART_PAUSE_SECONDS) -> None:
    """Runs one service, restarting it when it dies; raises FailedPrecondition when it keeps dying."""
    deaths: list[float] = []
    most = int(os.environ.get(RESTARTS_VARIABLE, RESTARTS_PER_MINUTE))
    while True:
        process = await children.spawn(service.command, log=log, env=service.environment)
        try:
            status = await process.wait()
        finally:
            await process.stop(grace_seconds=STOP_GRACE_SECONDS)
        now = time.monotonic()
        deaths = [death for death in deaths if now - death < 60] + [now]
        if len(deaths) > most or status == BAD_SETTINGS:
            raise FailedPrecondition(
                f"the {service.name} does not stay up (status {status}); its last words:\n{children.last_lines(log, 8)}"
            )
        out.print(f"the {service.name} died with status {status}; starting it again", style="yellow")
        await asyncio.sleep(pause_seconds)


async def answering(service: Service, keeper: asyncio.Task[None]) -> None:
    """Waits until the service accepts connections; raises what ended it before."""
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
