"""Between the trainer's vocabulary and its wire contract."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_common.errors import InvalidArgument
from tuneloom_common.ids import check_sha256
from tuneloom_common.manifests import FileEntry
from tuneloom_trainer.jobs import Checkpoint, CheckpointRegistered, Job, JobEvent
from tuneloom_trainer.permissions import Permitted
from tuneloom_trainer.specs import Recipe, TrainingSpec
from tuneloom_trainer.store.jobs import NewJob
from tuneloom_trainer.training_events import MAX_COUNT
from tuneloom_trainer.wire import fill, values_of
from tuneloom_trainer.worker.protocol import NOT_AN_EVENT, LoggedEvent

REQUEST_FIELDS = {"base_model", "dataset", "output_model", "recipe", "merge", "no_promote"}


def overrides(spec: jobs_pb2.TrainingSpec) -> dict[str, Any]:
    """The options a request sets."""
    return values_of(spec)


def to_spec(spec: TrainingSpec) -> jobs_pb2.TrainingSpec:
    """A resolved spec on the wire."""
    return fill(jobs_pb2.TrainingSpec(), spec)


def requested(job: jobs_pb2.TrainingJob) -> dict[str, Any]:
    """What a request asks for, flat and as JSON, to recognise the same request again."""
    fields = values_of(job)
    spec = {f"spec.{key}": value for key, value in fields.pop("spec", {}).items()}
    asked: dict[str, Any] = json.loads(json.dumps({key: fields[key] for key in REQUEST_FIELDS & fields.keys()} | spec))
    return asked


def to_unsaved(new: NewJob) -> jobs_pb2.TrainingJob:
    """A job as it would be, without a name."""
    return jobs_pb2.TrainingJob(
        base_model=new.base_model,
        dataset=new.dataset.name,
        output_model=new.output_model,
        recipe=new.recipe,
        spec=to_spec(new.spec),
        merge=new.merge,
        no_promote=not new.promote,
    )


def from_report(request: trainer_pb2.ReportEventsRequest) -> list[tuple[LoggedEvent, str]]:
    """The events of a report and their lines; raises InvalidArgument naming the one that is none."""
    events = []
    for number, told in enumerate(request.events):
        head = {"seq": request.first_sequence + number, "epoch": request.lease_epoch}
        try:
            line = json.dumps({**json.loads(told), **head})
            events.append((LoggedEvent.parse(line.encode()), line))
        except NOT_AN_EVENT as error:
            field = f"events[{number}]"
            raise InvalidArgument(f"{field}: is not a worker's event ({error!r:.200})", field=field) from None
    return events


def to_job(job: Job) -> jobs_pb2.TrainingJob:
    return jobs_pb2.TrainingJob(
        name=job.name,
        base_model=job.base_model,
        dataset=job.dataset.name,
        output_model=job.output_model,
        recipe=job.recipe,
        spec=to_spec(job.spec),
        merge=job.merge,
        no_promote=not job.promote,
        state=jobs_pb2.JobState.Value(f"JOB_STATE_{job.state.name}"),
        error=job.error,
        error_reason=job.error_reason,
        progress=fill(jobs_pb2.Progress(), job.progress) if job.progress else None,
        result_version=job.result_version,
        merged_version=job.merged_version,
        create_time=_time(job.create_time),
        update_time=_time(job.update_time),
        end_time=_time(job.end_time) if job.end_time else None,
        attempt=job.lease_epoch,
    )


def to_checkpoint(checkpoint: Checkpoint) -> jobs_pb2.Checkpoint:
    return jobs_pb2.Checkpoint(
        name=f"trainingJobs/{checkpoint.job_id}/checkpoints/{checkpoint.step}",
        step=min(checkpoint.step, MAX_COUNT),  # an earlier release stored any
        version=checkpoint.version,
        loss=checkpoint.loss,
        create_time=_time(checkpoint.create_time),
        model_name=f"{checkpoint.job_id}@{checkpoint.step}",
    )


def to_event(job_id: str, event: JobEvent) -> trainer_pb2.TrainingJobEvent:
    message = trainer_pb2.TrainingJobEvent(sequence=event.sequence, create_time=_time(event.create_time))
    body = event.body
    if isinstance(body, CheckpointRegistered):
        registered = Checkpoint(job_id, body.step, body.version, body.loss, event.create_time)
        message.checkpoint.CopyFrom(to_checkpoint(registered))
    else:
        fill(getattr(message, body.kind), body)
    return message


def from_transfers(files: Iterable[trainer_pb2.TransferFile]) -> list[FileEntry]:
    """Raises InvalidArgument for what is no file."""
    return [_transfer(file) for file in files]


def _transfer(file: trainer_pb2.TransferFile) -> FileEntry:
    check_sha256(file.sha256, field="sha256")
    if file.size_bytes < 0:
        raise InvalidArgument("size_bytes: must not be negative", field="size_bytes")
    return FileEntry(path="file", size=file.size_bytes, sha256=file.sha256)


def to_permission(permitted: Permitted) -> trainer_pb2.TransferPermission:
    given = permitted.permission
    return trainer_pb2.TransferPermission(
        sha256=permitted.sha256,
        stored=permitted.stored,
        url=given.url if given else "",
        headers=given.headers if given else {},
        valid_seconds=given.seconds if given else 0,
    )


def to_recipe(recipe: Recipe) -> trainer_pb2.Recipe:
    return fill(trainer_pb2.Recipe(), recipe)


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
