"""What workers tell, on its way to whoever runs their attempt: in order, once, under the lease.

Every launcher's workers end up here: those on this machine through their event log, those elsewhere by ReportEvents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from tuneloom_common.errors import FailedPrecondition, PermissionDenied
from tuneloom_common.principals import IssuedTokens, Principal
from tuneloom_common.queue import Lease
from tuneloom_trainer.store.reports import lease_lost
from tuneloom_trainer.worker.protocol import Exited, LoggedEvent


class Inbox:
    """One attempt's. `told` is the sequence of the last event that was taken in, `token` what its worker shows where it
    does not share a machine with us, `exited` what such a worker says last, `goes_on_from` the blobs of the checkpoint
    that it begins with."""

    def __init__(self, lease: Lease, token: str = "") -> None:
        self.lease = lease
        self.token = token
        self.told = 0
        self.goes_on_from: frozenset[str] = frozenset()
        self.exited: asyncio.Future[Exited] = asyncio.get_running_loop().create_future()
        self._shut = False
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Queue[tuple[list[LoggedEvent], asyncio.Future[None]] | None] = asyncio.Queue()

    async def report(self, events: Sequence[LoggedEvent]) -> int:
        """Returns `told` when the events are stored. Those told before are passed over, a gap is refused."""
        async with self._turn:
            news = [event for event in events if event.sequence > self.told]
            if self._shut:
                raise lease_lost(self.lease)
            if news:
                self._require_no_gap(news)
                stored = asyncio.get_running_loop().create_future()
                self._waiting.put_nowait((news, stored))
                await stored
            return self.told

    def shut(self) -> None:
        """Nobody listens any more: whoever is still telling something hears that."""
        self._shut = True
        while not self._waiting.empty():
            if (waiting := self._waiting.get_nowait()) is not None and not waiting[1].done():
                waiting[1].set_exception(lease_lost(self.lease))

    async def batches(self) -> AsyncIterator[list[LoggedEvent]]:
        """Events as they are told, until the inbox is closed. A batch counts as stored when the next is asked for."""
        while (waiting := await self._waiting.get()) is not None:
            told, stored = waiting
            # A report whose caller gave up is still here when the caller sends it again.
            news = [event for event in told if event.sequence > self.told]
            if not news:
                stored.set_result(None)
                continue
            try:
                yield news
            except BaseException:
                if not stored.done():
                    stored.set_exception(lease_lost(self.lease))
                    stored.exception()
                raise
            self.told = news[-1].sequence
            if isinstance(last := news[-1].event, Exited) and not self.exited.done():
                self.exited.set_result(last)
            if not stored.done():
                stored.set_result(None)

    def close(self) -> None:
        """After what was told up to now nothing more comes."""
        self._waiting.put_nowait(None)

    def _require_no_gap(self, news: Sequence[LoggedEvent]) -> None:
        expected = range(self.told + 1, self.told + 1 + len(news))
        if [event.sequence for event in news] != list(expected):
            raise FailedPrecondition(
                f"{self.lease.id}: event {self.told + 1} is missing before event {news[0].sequence}; report from there",
                reason="EVENTS_MISSING",
                metadata={"next_sequence": str(self.told + 1)},
            )


class Inboxes:
    """Those of the attempts that this process runs. A worker's token is good for as long as its attempt's inbox;
    `Reports` are for what workers tell other trainers."""

    def __init__(self, tokens: IssuedTokens | None = None) -> None:
        self._tokens = tokens or IssuedTokens()
        self._open: dict[str, Inbox] = {}

    @contextmanager
    def open(self, lease: Lease) -> Iterator[Inbox]:
        with self._tokens.issued(worker_of(lease)) as token:
            inbox = self._open[lease.id] = Inbox(lease, token)
            try:
                yield inbox
            finally:
                inbox.shut()
                if self._open.get(lease.id) is inbox:
                    del self._open[lease.id]

    def of(self, lease: Lease, caller: Principal) -> Inbox | None:
        """The inbox of an attempt, None when it does not run here; raises when the caller is another's worker."""
        if not caller.allows("admin") and caller != worker_of(lease):
            raise PermissionDenied(f"{caller.id} is not the worker of attempt {lease.epoch} of trainingJobs/{lease.id}")
        inbox = self._open.get(lease.id)
        return inbox if inbox is not None and inbox.lease == lease else None


def worker_of(lease: Lease) -> Principal:
    """Whoever shows the token of an attempt."""
    return Principal(f"worker:{lease.id}:{lease.epoch}", frozenset({"trainer:report"}))
