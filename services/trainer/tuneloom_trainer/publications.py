"""The checkpoints of one attempt on their way into the registry, in order, beside the training."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tuneloom_common.attempts import patiently
from tuneloom_trainer.jobs import Checkpoint, Job
from tuneloom_trainer.launchers import Run
from tuneloom_trainer.publishing import Publisher
from tuneloom_trainer.store import JobQueue
from tuneloom_trainer.worker.protocol import CheckpointSaved


class Publications:
    """`run` works through what is added. Nothing here holds up the events, a pause or a cancel."""

    def __init__(self, job: Job, *, queue: JobQueue, publisher: Publisher) -> None:
        self._job = job
        self._queue = queue
        self._publisher = publisher
        self._run: Run | None = None
        self._waiting: asyncio.Queue[CheckpointSaved] = asyncio.Queue()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._live: list[asyncio.Task[None]] = []
        self._result: asyncio.Task[str] | None = None

    def of(self, run: Run) -> None:
        """Whose checkpoints come next."""
        self._run = run

    def add(self, saved: CheckpointSaved) -> None:
        self._waiting.put_nowait(saved)

    async def run(self) -> None:
        """Works until cancelled; an error is raised by `drained` and ends the publishing."""
        while True:
            saved = await self._waiting.get()
            try:
                await self._publish(saved)
            except Exception as error:
                if not self._broken.done():
                    self._broken.set_exception(error)
                return
            finally:
                self._waiting.task_done()

    @property
    def failed(self) -> asyncio.Future[None]:
        """Set with the error when publishing cannot go on."""
        return self._broken

    async def drained(self, *, seconds: float | None = None) -> None:
        """Returns when everything added is registered, or after `seconds`; raises what keeps it from being."""
        joining = asyncio.ensure_future(self._waiting.join())
        try:
            await asyncio.wait({joining, self._broken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
        finally:
            joining.cancel()

    async def result(self) -> str:
        """The registered adapter (or model); its conversion begins when the last checkpoint is registered."""
        if self._result is None:
            newest = await patiently(lambda: self._queue.newest_checkpoint(self._job), what="read a job")
            if newest is None:
                raise LookupError("training is complete without a checkpoint")
            self._result = asyncio.create_task(self._convert(newest.version))
        return await self._result

    async def settled(self) -> None:
        """Returns when every checkpoint answers, or is known not to."""
        await asyncio.gather(*self._live)

    async def close(self) -> None:
        """Drops what is under way."""
        tasks = [*self._live, *([self._result] if self._result else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._broken.done():
            self._broken.exception()
        self._broken.cancel()

    async def _publish(self, saved: CheckpointSaved) -> None:
        run = self._run
        assert run is not None  # noqa: S101 - only a run's events add something
        stored = await patiently(lambda: run.store(saved), what="store a checkpoint")
        version = await self._publisher.checkpoint(self._job, stored, step=saved.step)
        checkpoint = Checkpoint(
            job_id=self._job.id,
            step=saved.step,
            version=version,
            loss=saved.loss,
            create_time=datetime.now(UTC),
            lease_epoch=self._job.lease_epoch,
            last=saved.last,
        )
        await patiently(lambda: self._queue.add_checkpoint(self._job, checkpoint), what="store a checkpoint")
        if saved.last and not self._job.result_version:  # sample chats may follow; the adapter need not wait for them
            self._result = asyncio.create_task(self._convert(version))
        await self._make_live(version, step=saved.step)

    async def renew(self) -> None:
        """Asks again for what earlier attempts asked for: their builds would end under a lease that is lost."""
        before = 0
        while True:
            page = await patiently(
                lambda before=before: self._queue.checkpoints(self._job, before=before),  # type: ignore[misc]
                what="read a job",
            )
            for checkpoint in page:
                if checkpoint.lease_epoch != self._job.lease_epoch:
                    await self._make_live(checkpoint.version, step=checkpoint.step)
            if not page:
                return
            before = page[-1].step

    async def _make_live(self, version: str, *, step: int) -> None:
        """Asked for before anything else, so that nothing that ends the attempt can leave it out."""
        build = await self._publisher.ask_live(self._job, version, step=step)
        self._live.append(asyncio.create_task(self._publisher.live(self._job, build, step=step)))

    async def _convert(self, checkpoint: str) -> str:
        version = await self._publisher.result(self._job, checkpoint)
        await patiently(lambda: self._queue.set_result(self._job, version), what="store a result")
        return version
