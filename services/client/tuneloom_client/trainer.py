"""The trainer's client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import structlog

from tuneloom.trainer.v1 import trainer_pb2 as pb
from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceStub
from tuneloom_client.connection import Connection
from tuneloom_client.job_events import JobEvent
from tuneloom_client.jobs import Checkpoint, Job, JobRequest, LogTail, Recipe
from tuneloom_client.paging import PAGE_SIZE, pages
from tuneloom_client.resuming import resumed
from tuneloom_client.retries import retry_config
from tuneloom_client.uploads import Upload
from tuneloom_common.errors import Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects.permissions import Permission

if TYPE_CHECKING:
    from tuneloom.trainer.v1.trainer_pb2_grpc import TrainerServiceAsyncStub

WATCH_PATIENCE_SECONDS = 120.0
REPEATABLE = (
    "GetTrainingJob",
    "ListTrainingJobs",
    "ListCheckpoints",
    "ListRecipes",
    "CreateTrainingJob",
    "ReadTrainingJobLog",
    "ReportEvents",
    "PermitTransfers",
)
log = structlog.get_logger()


class TrainerClient(Connection):
    """Every call has a deadline and raises our own errors."""

    peer_name = "trainer"
    retries = retry_config("tuneloom.trainer.v1.TrainerService", REPEATABLE)

    @cached_property
    def _stub(self) -> TrainerServiceAsyncStub:
        return TrainerServiceStub(self._channel)

    async def create_job(self, wanted: JobRequest, *, request_id: str = "") -> Job:
        """Checks and queues a job. The same request_id returns the same job."""
        return await self._create(wanted, request_id=request_id or uuid.uuid4().hex)

    async def check_job(self, wanted: JobRequest) -> Job:
        """The job as it would be, without a name; nothing is stored."""
        return await self._create(wanted, validate_only=True)

    async def _create(self, wanted: JobRequest, *, request_id: str = "", validate_only: bool = False) -> Job:
        request = pb.CreateTrainingJobRequest(
            training_job=wanted.to_wire(), request_id=request_id, validate_only=validate_only
        )
        with self._peer.called():
            return Job.of(await self._stub.CreateTrainingJob(request, timeout=self._timeout))

    async def job(self, name: str) -> Job:
        """The job "trainingJobs/{job}"."""
        with self._peer.called():
            return Job.of(await self._stub.GetTrainingJob(pb.GetTrainingJobRequest(name=name), timeout=self._timeout))

    async def jobs(self, *, at_most: int = 50) -> list[Job]:
        """The newest jobs, newest first."""
        found: list[Job] = []
        size = min(at_most, PAGE_SIZE)
        with self._peer.called():
            async for page in pages(
                lambda token: self._stub.ListTrainingJobs(
                    pb.ListTrainingJobsRequest(page_size=size, page_token=token), timeout=self._timeout
                )
            ):
                found += map(Job.of, page.training_jobs)
                if len(found) >= at_most:
                    break
        return found[:at_most]

    async def cancel(self, name: str) -> Job:
        """Stops a job for good."""
        with self._peer.called():
            return Job.of(
                await self._stub.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name), timeout=self._timeout)
            )

    async def pause(self, name: str) -> Job:
        """Lets a job save a checkpoint and leave."""
        with self._peer.called():
            return Job.of(
                await self._stub.PauseTrainingJob(pb.PauseTrainingJobRequest(name=name), timeout=self._timeout)
            )

    async def resume(self, name: str) -> Job:
        """Puts a paused job back into the queue."""
        with self._peer.called():
            return Job.of(
                await self._stub.ResumeTrainingJob(pb.ResumeTrainingJobRequest(name=name), timeout=self._timeout)
            )

    def watch(
        self,
        name: str,
        *,
        after_sequence: int = 0,
        patience_seconds: float = WATCH_PATIENCE_SECONDS,
        on_wait: Callable[[Unavailable], None] = lambda error: log.warning(f"waiting for the trainer: {error}"),
    ) -> AsyncIterator[JobEvent]:
        """A job's events to its end, each once, over restarts of the trainer; see `resumed` for the patience."""

        async def stream(after: int) -> AsyncIterator[JobEvent]:
            with self._peer.called():
                async for event in self._stub.WatchTrainingJob(
                    pb.WatchTrainingJobRequest(name=name, after_sequence=after)
                ):
                    yield JobEvent.of(event)

        return resumed(stream, after=after_sequence, patience_seconds=patience_seconds, on_wait=on_wait)

    async def checkpoints(self, job: str) -> list[Checkpoint]:
        """A job's registered checkpoints, newest first."""
        with self._peer.called():
            return [
                Checkpoint.of(checkpoint)
                async for page in pages(
                    lambda token: self._stub.ListCheckpoints(
                        pb.ListCheckpointsRequest(parent=job, page_size=PAGE_SIZE, page_token=token),
                        timeout=self._timeout,
                    )
                )
                for checkpoint in page.checkpoints
            ]

    async def log(self, job: str, *, max_bytes: int = 0) -> LogTail:
        """The end of what a job's worker wrote, at most `max_bytes` of it (0: the trainer's default)."""
        request = pb.ReadTrainingJobLogRequest(name=job, max_bytes=max_bytes)
        with self._peer.called():
            answer = await self._stub.ReadTrainingJobLog(request, timeout=self._timeout)
        return LogTail(answer.text, answer.truncated)

    async def recipes(self) -> list[Recipe]:
        """By name."""
        with self._peer.called():
            answer = await self._stub.ListRecipes(pb.ListRecipesRequest(), timeout=self._timeout)
        return [Recipe.of(recipe) for recipe in answer.recipes]

    # For workers elsewhere

    async def report_events(self, job_id: str, *, lease_epoch: int, first_sequence: int, events: Sequence[str]) -> int:
        """Tells what a worker did, as lines of its log; returns the sequence of the last event that is stored."""
        request = pb.ReportEventsRequest(
            name=f"trainingJobs/{job_id}", lease_epoch=lease_epoch, first_sequence=first_sequence, events=events
        )
        with self._peer.called():
            return (await self._stub.ReportEvents(request, timeout=self._timeout)).last_sequence

    async def permit_uploads(
        self, job_id: str, *, lease_epoch: int, files: Sequence[FileEntry]
    ) -> list[Permission | Literal["stored"] | None]:
        """Of a checkpoint: a permission for each, None where the object store gives none."""
        given = (await self._permit(job_id, lease_epoch, uploads=files)).uploads
        return ["stored" if one.stored else _permission(one) for one in given]

    async def permit_downloads(
        self, job_id: str, *, lease_epoch: int, files: Sequence[FileEntry]
    ) -> list[Permission | None]:
        """Of what the attempt needs."""
        return [_permission(one) for one in (await self._permit(job_id, lease_epoch, downloads=files)).downloads]

    async def _permit(
        self, job_id: str, epoch: int, *, uploads: Sequence[FileEntry] = (), downloads: Sequence[FileEntry] = ()
    ) -> pb.PermitTransfersResponse:
        up, down = (
            [pb.TransferFile(sha256=file.sha256, size_bytes=file.size) for file in files]
            for files in (uploads, downloads)
        )
        request = pb.PermitTransfersRequest(
            name=f"trainingJobs/{job_id}", lease_epoch=epoch, uploads=up, downloads=down
        )
        with self._peer.called():
            return await self._stub.PermitTransfers(request, timeout=self._timeout)

    async def upload_checkpoint_file(self, job_id: str, *, lease_epoch: int, upload: Upload) -> None:
        """Stores a file of a checkpoint; nothing is kept of what is there already."""
        entry = upload.entry

        async def parts() -> AsyncIterator[pb.UploadCheckpointFileRequest]:
            yield pb.UploadCheckpointFileRequest(
                file=pb.CheckpointFile(
                    name=f"trainingJobs/{job_id}",
                    lease_epoch=lease_epoch,
                    sha256=entry.sha256,
                    size_bytes=entry.size,
                )
            )
            async for chunk in upload.chunks():
                yield pb.UploadCheckpointFileRequest(chunk=chunk)

        with self._peer.called():
            await self._stub.UploadCheckpointFile(parts(), timeout=upload.seconds)


def _permission(given: pb.TransferPermission) -> Permission | None:
    return Permission(given.url, dict(given.headers), given.valid_seconds) if given.url else None
