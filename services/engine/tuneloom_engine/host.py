"""The engine host: at most `max_replicas` engines, started when asked for; the least recently used one leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from tuneloom_common.errors import NotFound, TuneloomError, Unavailable
from tuneloom_common.names import EngineName
from tuneloom_engine.artifacts import Artifacts
from tuneloom_engine.cache import VersionCache
from tuneloom_engine.failures import Setbacks
from tuneloom_engine.places import Places
from tuneloom_engine.replicas import Replica, State
from tuneloom_engine.settings import HostSettings
from tuneloom_engine.sockets import SocketDirectory
from tuneloom_engine.start_times import StartTimes
from tuneloom_engine.starting import Starting

LOOK_AFTER_SECONDS = 5
START_TIMES_FILE = "start-times.json"
log = structlog.get_logger()


class Host:
    """Replicas by engine name. To be created and closed inside one event loop."""

    def __init__(
        self,
        settings: HostSettings,
        artifacts: Artifacts,
        cache: VersionCache,
        sockets: SocketDirectory,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._replicas: dict[str, Replica] = {}
        self._starts: dict[str, asyncio.Task[Replica]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._setbacks = Setbacks(clock)
        self._times = StartTimes(settings.cache_dir / START_TIMES_FILE)
        self._places = Places(self._replicas, limit=settings.max_replicas, leave=self._stop)
        self._starting = Starting(settings, artifacts, sockets, self._places, self._setbacks, clock)
        self._closing = False

    async def ready(self, name: str) -> Replica:
        """The replica of a full-weight version, started if there is none. All who wait share one start."""
        EngineName.parse(name)
        self._check_open()
        replica = self._replicas.get(name)
        if replica is not None and replica.ready:
            replica.last_used = self._clock()
            return replica
        if name not in self._starts:
            self._setbacks.check_pause(name)
            self._starts[name] = start = asyncio.create_task(self._start(name))
            start.add_done_callback(partial(self._started, name))
        start = self._starts[name]
        await asyncio.wait({start})  # a caller who leaves does not end it
        if start.cancelled():
            self._check_open()
            raise _stopped(name)
        return start.result()

    def replica(self, name: str) -> Replica:
        """How it is now; raises NotFound when it neither runs nor starts."""
        EngineName.parse(name)
        if name not in self._replicas:
            raise NotFound(f"no engine serves {name}; POST /replicas/{name} starts one", field="name")
        return self._replicas[name]

    def replicas(self) -> list[Replica]:
        """By name."""
        return sorted(self._replicas.values(), key=lambda replica: replica.name)

    def describe(self, replica: Replica) -> dict[str, Any]:
        """For the HTTP API."""
        expected = self._times.expected_seconds(replica.name, replica.kind or "")
        return replica.describe(now=self._clock(), expected_seconds=expected)

    async def stop(self, name: str) -> None:
        """Drains and forgets a replica; raises NotFound when there is none."""
        self._check_open()
        replica = self.replica(name)
        self._setbacks.forget(name)
        await self._stop(replica, "it was asked to stop")

    async def look_after(self) -> None:
        """One round: notes which engines are in use, and stops those that have been idle for too long."""
        for replica in self.replicas():
            if not replica.ready or replica.process is None:
                continue
            activity = await replica.process.activity()
            if activity is not None and (activity.unfinished or activity != replica.activity):
                replica.last_used = self._clock()
            replica.activity = activity
            idle_seconds = self._clock() - replica.last_used
            if 0 < self._settings.idle_stop_seconds < idle_seconds:
                await self._stop(replica, f"it was idle for {idle_seconds:.0f} s")

    async def run(self) -> None:
        """Preloads, then looks after the replicas until it is cancelled."""
        await asyncio.to_thread(self._cache.remove_leftovers)
        for name in self._settings.preload:
            self._in_background(self._try(name))
        while True:
            await asyncio.sleep(LOOK_AFTER_SECONDS)
            await self.look_after()

    def refuse(self) -> None:
        """From now on nothing is started, and whoever waits for a start is told so."""
        self._closing = True
        for start in self._starts.values():
            start.cancel()

    async def close(self) -> None:
        """Drains all engines."""
        self.refuse()
        await asyncio.gather(*self._starts.values(), return_exceptions=True)
        await asyncio.gather(*(self._stop(replica, "the host stops") for replica in self.replicas()))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, name: str) -> Replica:
        if previous := self._replicas.get(name):
            await self._stop(previous, "it is started again")
        now = self._clock()
        replica = self._replicas[name] = Replica(name, now, now)
        displaced: list[str] = []
        try:
            process = await self._starting.launch(replica, displaced)
        except BaseException:
            await self._forget(replica)
            raise
        self._in_background(self._starting.watch(replica, process))
        try:
            await self._starting.until_ready(replica, process)
        except TuneloomError:
            # What left for an engine that does not work comes back.
            for other in displaced:
                self._in_background(self._try(other))
            raise
        self._times.note(name, replica.kind or "", replica.start_seconds or 0.0)
        return replica

    async def _stop(self, replica: Replica, why: str) -> None:
        if replica.stopping is None:
            replica.stopping = asyncio.create_task(self._drain(replica, why))
        await asyncio.shield(replica.stopping)

    async def _drain(self, replica: Replica, why: str) -> None:
        start = self._starts.get(replica.name)
        replica.state = State.STOPPING
        if replica.process is not None and replica.process.running:
            log.info(f"stopping engine {replica.name}: {why}", replica=replica.name, pid=replica.process.pid)
            await replica.process.drain(self._settings.drain_seconds)
        elif replica.process is None and start is not None:
            start.cancel()
            await asyncio.wait({start})
        await self._forget(replica)

    async def _forget(self, replica: Replica) -> None:
        replica.has_place = False
        if self._replicas.get(replica.name) is replica:
            del self._replicas[replica.name]
            self._cache.release(replica.name)
            await asyncio.to_thread(self._cache.prune)
        await self._places.notify()

    async def _try(self, name: str) -> None:
        """A start that nobody waits for."""
        try:
            await self.ready(name)
        except TuneloomError as error:
            log.error(f"{name} was not started: {error}", replica=name)

    def _started(self, name: str, start: asyncio.Task[Replica]) -> None:
        del self._starts[name]
        if not start.cancelled():
            start.exception()  # was delivered to those who waited, if any are left

    def _check_open(self) -> None:
        if self._closing:
            raise Unavailable("the engine host stops; ask again when it is back", reason="ENGINE_HOST_STOPPING")

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stopped(name: str) -> Unavailable:
    return Unavailable(f"the engine for {name} was stopped while it started; ask for it again", reason="ENGINE_STOPPED")
