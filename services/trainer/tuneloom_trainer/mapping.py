"""Between the trainer's vocabulary and its wire contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_trainer.jobs import Checkpoint, Job, JobEvent, JobState
from tuneloom_trainer.specs import Recipe

_STATES = {state: jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}


def overrides(spec: Message) -> dict[str, Any]:
    """The fields a request sets, as plain values; enums in lower case without their prefix."""
    values: dict[str, Any] = {}
    for field, value in spec.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            values[field.name] = overrides(value)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None  # noqa: S101 - true of every enum field
            known = field.enum_type.values_by_number.get(value)  # enums are open: a newer client may know more
            values[field.name] = known.name.removeprefix(f"{field.name.upper()}_").lower() if known else value
        elif field.is_repeated:
            values[field.name] = tuple(value)
        else:
            values[field.name] = value
    return values


def to_spec(spec: dict[str, Any]) -> jobs_pb2.TrainingSpec:
    """A resolved spec on the wire."""
    fields = dict(spec)
    lora = fields.pop("lora")
    return jobs_pb2.TrainingSpec(
        method=jobs_pb2.Method.Value(f"METHOD_{fields.pop('method').upper()}"),
        quantization=jobs_pb2.Quantization.Value(f"QUANTIZATION_{fields.pop('quantization').upper()}"),
        lora=jobs_pb2.LoraSpec(**lora),
        **fields,
    )


def to_job(job: Job) -> jobs_pb2.TrainingJob:
    return jobs_pb2.TrainingJob(
        name=job.name,
        base_model=job.base_model,
        dataset=job.dataset.name,
        output_model=job.output_model,
        recipe=job.recipe,
        spec=to_spec(job.spec),
        merge=job.merge,
        state=_STATES[job.state],
        error=job.error,
        error_reason=job.error_reason,
        progress=jobs_pb2.Progress(**job.progress) if job.progress else None,
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
    match event.kind:
        case "state_changed":
            message.state_changed.state = _STATES[JobState(body["state"])]
            message.state_changed.reason = body["reason"]
        case "checkpoint":
            found = Checkpoint(job_id, body["step"], body["version"], body["loss"], event.create_time)
            message.checkpoint.CopyFrom(to_checkpoint(found))
        case "progress":
            message.progress.CopyFrom(jobs_pb2.Progress(**body))
        case "sample_chat":
            message.sample_chat.CopyFrom(trainer_pb2.SampleChat(**body))
        case "data_report":
            message.data_report.CopyFrom(trainer_pb2.DataReport(**body))
        case _:
            message.note.text = str(body.get("text", body))
    return message


def to_recipe(recipe: Recipe) -> trainer_pb2.Recipe:
    return trainer_pb2.Recipe(
        name=recipe.name, description=recipe.description, spec=to_spec(recipe.spec.model_dump(mode="json"))
    )


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
