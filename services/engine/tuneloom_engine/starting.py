"""One start: files, a place, a process, and waiting until it answers, or until it is known why it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from tuneloom_common.errors import FailedPrecondition, Unavailable
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.causes import Cause, cause_of
from tuneloom_engine.contents import check_model
from tuneloom_engine.failures import EngineFailed, Setbacks
from tuneloom_engine.launch import check_installed, memory, plan
from tuneloom_engine.places import Places
from tuneloom_engine.process import EngineProcess
from tuneloom_engine.replicas import Replica, State
from tuneloom_engine.settings import HostSettings
from tuneloom_engine.sockets import SocketDirectory

READY_POLL_SECONDS = 0.1
log = structlog.get_logger()


class Starting:
    """What a start needs; it keeps nothing about single replicas."""

    def __init__(
        self,
        settings: HostSettings,
        artifacts: Artifacts,
        sockets: SocketDirectory,
        places: Places,
        setbacks: Setbacks,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._sockets = sockets
        self._places = places
        self._setbacks = setbacks
        self._clock = clock

    async def launch(self, replica: Replica, displaced: list[str]) -> EngineProcess:
        """Runs the replica's engine; adds to `displaced` whom it took the place from.

        Everything that can be known to be wrong is known before anybody has to leave.
        """
        name = replica.name
        check_installed(self._settings)
        artifact = await self._artifacts.find(name)
        kind = artifact.manifest.kind
        if not kind.full_weights:
            raise FailedPrecondition(
                f"{name} is of kind {kind}, which is no model by itself; ask for the engine of its base",
                reason="NOT_FULL_WEIGHTS",
                field="name",
            )
        replica.digest, replica.kind = artifact.digest, kind
        directory = await self._artifacts.fetch(artifact, holder=name)
        await asyncio.to_thread(check_model, directory, name)
        may_displace = partial(self._setbacks.check_may_displace, name)
        displaced += await self._places.take(replica, check_may_displace=may_displace)
        socket, adapters = self._sockets.next(), self._sockets.adapters
        command = plan(self._settings, name=name, kind=kind, directory=directory, socket=socket, adapters=adapters)
        log_file = self._settings.log_dir.absolute() / f"{name}.log"
        replica.process = await EngineProcess.spawn(command, socket=socket, log=log_file)
        return replica.process

    async def until_ready(self, replica: Replica, process: EngineProcess) -> None:
        """Raises EngineFailed, or Unavailable when it is stopped before it answers."""
        limit = self._settings.start_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                while replica.state is State.STARTING and not await process.healthy():  # noqa: ASYNC110
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            last = cause_of(process.log, None)
            self._fail(
                replica,
                f"the engine for {replica.name} was not ready after {limit:g} s; raise "
                f"TUNELOOM_ENGINE_START_TIMEOUT_SECONDS or serve a smaller model. The last it said: {last.sentence}",
                log_lines=last.lines,
            )
        if replica.state is State.STARTING:
            await self._ready(replica, process)
            return
        await process.drain(0)
        await self._places.notify()
        if replica.failure is None:
            raise Unavailable(
                f"the engine for {replica.name} was stopped while it started; ask for it again", reason="ENGINE_STOPPED"
            )
        self._setbacks.note(replica.name, replica.failure)
        raise replica.failure

    async def watch(self, replica: Replica, process: EngineProcess) -> None:
        """Notices the end of an engine that nobody has asked to end."""
        status = await process.wait()
        if replica.state is State.STARTING:
            cause = await asyncio.to_thread(cause_of, process.log, status)
            if replica.state is State.STARTING:
                self._fail(replica, _ended_at_start(replica, process, status, cause), log_lines=cause.lines)
        elif replica.state is State.READY:
            self._fail(
                replica,
                f"the engine for {replica.name} ended by itself with status {status}; the next request starts "
                f"it again, its log {process.log} has the cause",
            )
        await self._places.notify()

    async def _ready(self, replica: Replica, process: EngineProcess) -> None:
        replica.state = State.READY
        replica.last_used = self._clock()
        replica.start_seconds = self._clock() - replica.started
        self._setbacks.forget(replica.name)
        await self._places.notify()
        log.info(
            f"engine {replica.name} ({replica.kind}) is ready at {process.url} after {replica.start_seconds:.1f} s: "
            f"process {process.pid}, memory {memory(self._settings)}, log {process.log}",
            replica=replica.name,
            pid=process.pid,
        )

    def _fail(self, replica: Replica, sentence: str, *, log_lines: str = "") -> None:
        replica.state = State.FAILED
        replica.failure = EngineFailed(sentence, log=log_lines)
        log.error(sentence, replica=replica.name, log_end=log_lines)


def _ended_at_start(replica: Replica, process: EngineProcess, status: int, cause: Cause) -> str:
    return (
        f"the engine for {replica.name} ended with status {status} while it started: {cause.sentence}; its log "
        f"{process.log} has the whole story"
    )
