"""The engine host: at most `max_replicas` engines, started when asked for; the least recently used one leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import structlog

from tuneloom_common.errors import FailedPrecondition, NotFound, TuneloomError, Unavailable
from tuneloom_common.names import EngineName
from tuneloom_engine.artifacts import Artifact, Artifacts
from tuneloom_engine.launch import Launch, check_installed, memory, plan
from tuneloom_engine.process import EngineProcess
from tuneloom_engine.replicas import Replica, State
from tuneloom_engine.settings import HostSettings

READY_POLL_SECONDS = 0.1
LOOK_AFTER_SECONDS = 5
log = structlog.get_logger()


class Host:
    """Replicas by engine name. To be created and closed inside one event loop."""

    def __init__(
        self,
        settings: HostSettings,
        artifacts: Artifacts,
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._session = session
        self._clock = clock
        self._replicas: dict[str, Replica] = {}
        self._starts: dict[str, asyncio.Task[Replica]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._placing = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def ready(self, name: str) -> Replica:
        """The replica of a full-weight version, started if there is none. All who wait share one start."""
        EngineName.parse(name)
        replica = self._replicas.get(name)
        if replica is not None and replica.ready:
            replica.last_used = self._clock()
            return replica
        start = self._starts.get(name)
        if start is None:
            start = asyncio.create_task(self._start(name))
            self._starts[name] = start
            start.add_done_callback(partial(self._started, name))
        return await asyncio.shield(start)

    def replicas(self) -> list[Replica]:
        """By name."""
        return sorted(self._replicas.values(), key=lambda replica: replica.name)

    async def stop(self, name: str) -> None:
        """Drains and forgets a replica; raises NotFound when there is none."""
        EngineName.parse(name)
        replica = self._replicas.get(name)
        if replica is None:
            raise NotFound(f"no engine serves {name}; GET /replicas lists those that run", field="name")
        await self._stop(replica, "it was asked to stop")

    async def look_after(self) -> None:
        """One round: notes which engines are in use, and stops those that have been idle for too long."""
        for replica in self.replicas():
            if not replica.ready or replica.process is None:
                continue
            activity = await replica.process.activity(self._session)
            if activity is not None and (activity.unfinished or activity != replica.activity):
                replica.last_used = self._clock()
            replica.activity = activity
            idle_seconds = self._clock() - replica.last_used
            if 0 < self._settings.idle_stop_seconds < idle_seconds:
                await self._stop(replica, f"it was idle for {idle_seconds:.0f} s")

    async def run(self) -> None:
        """Preloads, then looks after the replicas until it is cancelled."""
        await asyncio.to_thread(self._artifacts.remove_leftovers)
        for name in self._settings.preload:
            self._in_background(self._preload(name))
        while True:
            await asyncio.sleep(LOOK_AFTER_SECONDS)
            await self.look_after()

    async def close(self) -> None:
        """Drains all engines."""
        starts = list(self._starts.values())
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        await asyncio.gather(*(self._stop(replica, "the host stops") for replica in self.replicas()))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, name: str) -> Replica:
        check_installed(self._settings)
        artifact = await self._artifacts.find(name)
        if not artifact.manifest.kind.full_weights:
            raise FailedPrecondition(
                f"{name} is of kind {artifact.manifest.kind}, which is no model by itself; ask for the engine "
                "of its base",
                reason="NOT_FULL_WEIGHTS",
                field="name",
            )
        directory = await self._artifacts.fetch(artifact)

        def launch(port: int) -> Launch:
            return plan(self._settings, name=name, kind=replica.kind, directory=directory, port=port)

        replica = await self._take_place(artifact)
        try:
            process = await EngineProcess.spawn(launch, self._settings.log_dir.absolute() / f"{name}.log")
        except BaseException:
            await self._forget(replica)
            raise
        replica.process = process
        self._in_background(self._watch(replica, process))
        await self._until_ready(replica, process)
        return replica

    async def _take_place(self, artifact: Artifact) -> Replica:
        """Waits for a free place, or makes one: failed replicas go first, then the least recently used."""
        async with self._placing:
            while True:
                if previous := self._replicas.get(artifact.name):
                    await self._stop(previous, "it is started again")
                elif self._has_place():
                    now = self._clock()
                    replica = Replica(artifact.name, artifact.digest, artifact.manifest.kind, now, now)
                    self._replicas[artifact.name] = replica
                    return replica
                elif victim := self._first_to_leave():
                    await self._stop(victim, f"its place is needed for {artifact.name}")
                else:
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._has_place() or self._first_to_leave())

    def _has_place(self) -> bool:
        return len(self._replicas) < self._settings.max_replicas

    def _first_to_leave(self) -> Replica | None:
        """None while every replica is starting."""
        candidates = [replica for replica in self._replicas.values() if replica.state is not State.STARTING]
        return min(candidates, key=lambda one: (one.state is State.READY, one.last_used), default=None)

    async def _until_ready(self, replica: Replica, process: EngineProcess) -> None:
        """Raises Unavailable when the engine fails or is stopped before it answers."""
        limit = self._settings.start_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                while replica.state is State.STARTING and not await process.healthy(self._session):  # noqa: ASYNC110
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            self._fail(
                replica,
                f"the engine for {replica.name} was not ready after {limit:g} s; raise "
                "TUNELOOM_ENGINE_START_TIMEOUT_SECONDS or serve a smaller model",
            )
        if replica.state is State.STARTING:
            replica.state = State.READY
            replica.last_used = self._clock()
            await self._notify()
            self._log_ready(replica, process)
            return
        await process.drain(0)
        await self._notify()
        raise Unavailable(
            replica.error or f"the engine for {replica.name} was stopped while it started; ask for it again",
            reason="ENGINE_FAILED" if replica.error else "ENGINE_STOPPED",
            metadata={"log": replica.log_end},
        )

    def _log_ready(self, replica: Replica, process: EngineProcess) -> None:
        seconds = self._clock() - replica.started
        log.info(
            f"engine {replica.name} ({replica.kind}) is ready at {process.url} after {seconds:.1f} s: "
            f"process {process.pid}, memory {memory(self._settings)}, log {process.log}",
            replica=replica.name,
            pid=process.pid,
            port=process.port,
        )

    async def _watch(self, replica: Replica, process: EngineProcess) -> None:
        """Notices the end of an engine that nobody has asked to end."""
        status = await process.wait()
        if replica.state is State.STARTING:
            self._fail(
                replica,
                f"the engine for {replica.name} ended with status {status} while it started; its log "
                f"{process.log} has the cause",
            )
        elif replica.state is State.READY:
            self._fail(
                replica,
                f"the engine for {replica.name} ended by itself with status {status}; the next request starts "
                f"it again, its log {process.log} has the cause",
            )
        await self._notify()

    def _fail(self, replica: Replica, sentence: str) -> None:
        replica.state = State.FAILED
        replica.error = sentence
        replica.log_end = replica.process.last_lines() if replica.process else ""
        log.error(sentence, replica=replica.name, log_end=replica.log_end)

    async def _stop(self, replica: Replica, why: str) -> None:
        if replica.stopping is None:
            replica.stopping = asyncio.create_task(self._drain(replica, why))
        await asyncio.shield(replica.stopping)

    async def _drain(self, replica: Replica, why: str) -> None:
        replica.state = State.STOPPING
        if replica.process is not None and replica.process.running:
            log.info(f"stopping engine {replica.name}: {why}", replica=replica.name, pid=replica.process.pid)
            await replica.process.drain(self._settings.drain_seconds)
        await self._forget(replica)

    async def _forget(self, replica: Replica) -> None:
        if self._replicas.get(replica.name) is replica:
            del self._replicas[replica.name]
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _preload(self, name: str) -> None:
        try:
            await self.ready(name)
        except TuneloomError as error:
            log.error(f"{name} was not preloaded: {error}", replica=name)

    def _started(self, name: str, start: asyncio.Task[Replica]) -> None:
        del self._starts[name]
        if not start.cancelled():
            start.exception()  # was delivered to those who waited, if any are left

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
