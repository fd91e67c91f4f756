"""Messages and values have the same names, so nobody spells out a field between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2
from tuneloom_trainer.jobs import BODIES, CheckpointRegistered, JobState, StateChanged
from tuneloom_trainer.specs import LoraSpec, TrainingSpec
from tuneloom_trainer.wire import fill, values_of


def test_what_is_set_is_read_zeros_included() -> None:
    message = jobs_pb2.TrainingSpec(
        tuning=jobs_pb2.TUNING_FULL, packing=False, save_steps=0, sample_prompts=["a"], lora=jobs_pb2.LoraSpec(r=8)
    )

    assert values_of(message) == {
        "tuning": "full",
        "packing": False,
        "save_steps": 0,
        "sample_prompts": ("a",),
        "lora": {"r": 8},
    }
    assert values_of(jobs_pb2.TrainingSpec()) == {}


def test_a_number_of_a_newer_contract_stays_a_number() -> None:
    assert values_of(jobs_pb2.TrainingSpec(tuning=77)) == {"tuning": 77}  # type: ignore[arg-type]


def test_a_value_fills_every_field_it_has() -> None:
    spec = TrainingSpec(tuning="full", save_steps=0, lora=LoraSpec(target_modules=("q", "v")), sample_prompts=("hi",))

    message = fill(jobs_pb2.TrainingSpec(), spec)

    assert {field.name for field, _ in message.ListFields()} == {f.name for f in message.DESCRIPTOR.fields}
    assert (message.tuning, message.method) == (jobs_pb2.TUNING_FULL, jobs_pb2.METHOD_FULL)
    assert list(message.lora.target_modules) == ["q", "v"]
    assert message.HasField("save_steps")


def test_an_empty_value_is_set_all_the_same() -> None:
    @dataclass
    class Empty:
        lora: object

    message = fill(jobs_pb2.TrainingSpec(), Empty(object()))

    assert message.HasField("lora")
    assert not message.HasField("packing")


def test_states_go_by_their_names() -> None:
    message = fill(trainer_pb2.StateChanged(), StateChanged(state=JobState.PAUSED, reason="asked"))

    assert (message.state, message.reason) == (jobs_pb2.JOB_STATE_PAUSED, "asked")


@pytest.mark.parametrize("body", BODIES.values())
def test_every_event_has_its_place_in_the_contract(body: Any) -> None:
    event = trainer_pb2.TrainingJobEvent.DESCRIPTOR
    field = event.fields_by_name[body.kind]

    assert field.containing_oneof.name == "event"
    if body is not CheckpointRegistered:  # its message also has names derived from the job's
        assert set(body.model_fields) == set(field.message_type.fields_by_name)


def test_every_event_of_the_contract_has_a_body() -> None:
    oneof = trainer_pb2.TrainingJobEvent.DESCRIPTOR.oneofs_by_name["event"]

    assert {field.name for field in oneof.fields} == set(BODIES)
