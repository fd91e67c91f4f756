"""Between the trainer's vocabulary and its wire contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_trainer.jobs import Checkpoint, CheckpointRegistered, Job, JobEvent
from tuneloom_trainer.specs import Recipe, TrainingSpec
from tuneloom_trainer.wire import fill, values_of


def overrides(spec: jobs_pb2.TrainingSpec) -> dict[str, Any]:
    """The options a request sets."""
    return values_of(spec)


def to_spec(spec: TrainingSpec) -> jobs_pb2.TrainingSpec:
    """A resolved spec on the wire."""
    return fill(jobs_pb2.TrainingSpec(), spec)


def to_job(job: Job) -> jobs_pb2.TrainingJob:
    return jobs_pb2.TrainingJob(
        name=job.name,
        base_model=job.base_model,
        dataset=job.dataset.name,
        output_model=job.output_model,
        recipe=job.recipe,
        spec=to_spec(job.spec),
        merge=job.merge,
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
        step=checkpoint.step,
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


def to_recipe(recipe: Recipe) -> trainer_pb2.Recipe:
    return fill(trainer_pb2.Recipe(), recipe)


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
