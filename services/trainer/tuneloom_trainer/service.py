"""The gRPC face of the trainer. Handlers translate, call one use case and translate back; no handler has a `try`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2, trainer_pb2_grpc
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.grpc.edge import caller
from tuneloom_common.names import parse_name
from tuneloom_common.paging import decode_number, encode_token, page_limit
from tuneloom_common.queue import Lease
from tuneloom_common.receiving import Announced, Receiving
from tuneloom_trainer import mapping
from tuneloom_trainer.inboxes import Inboxes
from tuneloom_trainer.job_logs import JobLogs
from tuneloom_trainer.permissions import Permissions
from tuneloom_trainer.specs import Recipe
from tuneloom_trainer.store import JobStore, Reports
from tuneloom_trainer.submission import Submission

WATCH_POLL_SECONDS = 1.0
MAX_REQUEST_ID_CHARS = 128

SCOPES = {
    "CreateTrainingJob": "trainer:write",
    "GetTrainingJob": "trainer:read",
    "ListTrainingJobs": "trainer:read",
    "CancelTrainingJob": "trainer:write",
    "PauseTrainingJob": "trainer:write",
    "ResumeTrainingJob": "trainer:write",
    "WatchTrainingJob": "trainer:read",
    "ListCheckpoints": "trainer:read",
    "ReadTrainingJobLog": "trainer:read",
    "ReportEvents": "trainer:report",
    "UploadCheckpointFile": "trainer:report",
    "PermitTransfers": "trainer:report",
    "ListRecipes": "trainer:read",
}


class TrainerService(trainer_pb2_grpc.TrainerServiceServicer):
    """See trainer.proto."""

    def __init__(
        self,
        *,
        store: JobStore,
        submission: Submission,
        recipes: Mapping[str, Recipe],
        inboxes: Inboxes,
        reports: Reports,
        receiving: Receiving,
        logs: JobLogs,
        permissions: Permissions,
    ) -> None:
        self._store = store
        self._logs = logs
        self._permissions = permissions
        self._submission = submission
        self._recipes = recipes
        self._inboxes = inboxes
        self._reports = reports
        self._receiving = receiving

    async def CreateTrainingJob(  # noqa: N802
        self, request: trainer_pb2.CreateTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        if len(request.request_id) > MAX_REQUEST_ID_CHARS:
            raise InvalidArgument(f"request_id: longer than {MAX_REQUEST_ID_CHARS} characters", field="request_id")
        wanted = request.training_job
        # A retry is answered from what is stored: whatever the registry says, or whether it answers at all, by now.
        if made := await self._store.made_by(request.request_id, mapping.requested(wanted)):
            return mapping.to_job(made)
        new = await self._submission.check(wanted, request_id=request.request_id)
        if request.validate_only:
            return mapping.to_unsaved(new)
        return mapping.to_job(await self._store.create(new))

    async def GetTrainingJob(  # noqa: N802
        self, request: trainer_pb2.GetTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.get(_job_id(request.name)))

    async def ListTrainingJobs(  # noqa: N802
        self, request: trainer_pb2.ListTrainingJobsRequest, context: Any
    ) -> trainer_pb2.ListTrainingJobsResponse:
        limit = page_limit(request.page_size)
        found = await self._store.list_jobs(before=decode_number(request.page_token), limit=limit + 1)
        return trainer_pb2.ListTrainingJobsResponse(
            training_jobs=[mapping.to_job(job) for _, job in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1][0])) if len(found) > limit else "",
        )

    async def CancelTrainingJob(  # noqa: N802
        self, request: trainer_pb2.CancelTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.request_cancel(_job_id(request.name)))

    async def PauseTrainingJob(  # noqa: N802
        self, request: trainer_pb2.PauseTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.request_pause(_job_id(request.name)))

    async def ResumeTrainingJob(  # noqa: N802
        self, request: trainer_pb2.ResumeTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.resume(_job_id(request.name)))

    async def WatchTrainingJob(  # noqa: N802
        self, request: trainer_pb2.WatchTrainingJobRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.TrainingJobEvent]:
        job_id, sequence = _job_id(request.name), request.after_sequence
        with self._store.notifier.subscribe(f"trainingJobs/{job_id}") as changes:
            while True:
                ended = (await self._store.get(job_id)).state.final  # read before the events: none can follow
                events = await self._store.events_after(job_id, sequence)
                for event in events:
                    sequence = event.sequence
                    yield mapping.to_event(job_id, event)
                if events:
                    continue
                if ended:
                    return
                await changes.wait(WATCH_POLL_SECONDS)

    async def ListCheckpoints(  # noqa: N802
        self, request: trainer_pb2.ListCheckpointsRequest, context: Any
    ) -> trainer_pb2.ListCheckpointsResponse:
        limit = page_limit(request.page_size)
        found = await self._store.list_checkpoints(
            _job_id(request.parent, field="parent"), before=decode_number(request.page_token), limit=limit + 1
        )
        return trainer_pb2.ListCheckpointsResponse(
            checkpoints=[mapping.to_checkpoint(checkpoint) for checkpoint in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1].step)) if len(found) > limit else "",
        )

    async def ReadTrainingJobLog(  # noqa: N802
        self, request: trainer_pb2.ReadTrainingJobLogRequest, context: Any
    ) -> trainer_pb2.ReadTrainingJobLogResponse:
        job = await self._store.get(_job_id(request.name))
        tail = await self._logs.tail(job, max_bytes=request.max_bytes)
        return trainer_pb2.ReadTrainingJobLogResponse(text=tail.text, truncated=tail.truncated)

    async def ReportEvents(  # noqa: N802
        self, request: trainer_pb2.ReportEventsRequest, context: Any
    ) -> trainer_pb2.ReportEventsResponse:
        lease = Lease(_job_id(request.name), request.lease_epoch)
        told = mapping.from_report(request)
        if (inbox := self._inboxes.of(lease, caller.get())) is not None:
            last = await inbox.report([event for event, _ in told])
        else:
            last = await self._reports.tell(lease, [(event.sequence, line) for event, line in told])
        return trainer_pb2.ReportEventsResponse(last_sequence=last)

    async def UploadCheckpointFile(  # noqa: N802
        self, request_iterator: AsyncIterator[trainer_pb2.UploadCheckpointFileRequest], context: Any
    ) -> trainer_pb2.UploadCheckpointFileResponse:
        first = await self._receiving.next(request_iterator)
        file = first.file if first else trainer_pb2.CheckpointFile()
        lease = Lease(_job_id(file.name, field="file.name"), file.lease_epoch)
        if self._inboxes.of(lease, caller.get()) is None:
            await self._reports.goes_on_from(lease)
        chunks = (part.chunk async for part in request_iterator)
        await self._receiving.take(Announced(file.sha256, file.size_bytes, field="file"), chunks)
        return trainer_pb2.UploadCheckpointFileResponse(sha256=file.sha256)

    async def PermitTransfers(  # noqa: N802
        self, request: trainer_pb2.PermitTransfersRequest, context: Any
    ) -> trainer_pb2.PermitTransfersResponse:
        lease = Lease(job_id := _job_id(request.name), request.lease_epoch)
        inbox = self._inboxes.of(lease, caller.get())
        more = inbox.goes_on_from if inbox is not None else await self._reports.goes_on_from(lease)
        uploads = await self._permissions.uploads(mapping.from_transfers(request.uploads))
        wanted = mapping.from_transfers(request.downloads)
        downloads = await self._permissions.downloads(await self._store.get(job_id), more, wanted) if wanted else []
        return trainer_pb2.PermitTransfersResponse(
            uploads=map(mapping.to_permission, uploads), downloads=map(mapping.to_permission, downloads)
        )

    async def ListRecipes(  # noqa: N802
        self, request: trainer_pb2.ListRecipesRequest, context: Any
    ) -> trainer_pb2.ListRecipesResponse:
        return trainer_pb2.ListRecipesResponse(recipes=[mapping.to_recipe(recipe) for recipe in self._recipes.values()])


def _job_id(name: str, *, field: str = "name") -> str:
    return parse_name(name, "trainingJobs", field=field)
