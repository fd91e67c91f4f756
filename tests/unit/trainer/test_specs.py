"""Recipes and overrides: resolved, or refused with the option's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound
from tuneloom_trainer import mapping
from tuneloom_trainer.specs import RENAMED, LoraSpec, TrainingSpec, load_recipes, override, resolve

RECIPES = load_recipes()


STORED_BY_0_1_0 = {
    "method": "full",
    "quantization": "none",
    "num_epochs": 2.0,
    "max_steps": 7,
    "batch_size": 4,
    "gradient_accumulation_steps": 3,
    "learning_rate": 1e-5,
    "lr_scheduler": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "max_grad_norm": 0.5,
    "max_length": 512,
    "packing": False,
    "seed": 9,
    "save_steps": 0,
    "logging_steps": 2,
    "sample_prompts": ["hi"],
    "lora": {"r": 8, "alpha": 16.0, "dropout": 0.1, "target_modules": ["q_proj"], "use_rslora": True},
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_to_itself_and_survives_the_wire_and_the_store(name: str) -> None:
    spec = resolve(RECIPES, name, {})
    sent = mapping.to_spec(spec)

    assert spec == RECIPES[name].spec
    assert override(TrainingSpec(), mapping.overrides(sent)) == spec
    assert TrainingSpec.stored(json.loads(spec.model_dump_json())) == spec


@pytest.mark.parametrize(("spec", "message"), [(TrainingSpec, jobs_pb2.TrainingSpec), (LoraSpec, jobs_pb2.LoraSpec)])
def test_the_contract_has_every_option_by_its_name(spec: Any, message: Any) -> None:
    on_the_wire = {field.name for field in message.DESCRIPTOR.fields}

    assert on_the_wire - RENAMED.keys() == set(spec.model_fields)


def test_every_option_has_a_default() -> None:
    assert TrainingSpec() == TrainingSpec.stored({})


def test_a_spec_stored_by_the_first_release_means_what_it_meant() -> None:
    spec = TrainingSpec.stored(STORED_BY_0_1_0)

    assert spec.tuning == spec.method == "full"
    written = json.loads(spec.model_dump_json())
    assert {key: written[key] for key in STORED_BY_0_1_0.keys() - {"method"}} == {
        key: value for key, value in STORED_BY_0_1_0.items() if key != "method"
    }
    spec.require_readable()


def test_a_dropped_option_is_passed_over() -> None:
    assert TrainingSpec.stored({**STORED_BY_0_1_0, "wizardry": 3}) == TrainingSpec.stored(STORED_BY_0_1_0)


def test_a_value_of_another_release_can_be_listed_but_not_run() -> None:
    spec = TrainingSpec.stored({**STORED_BY_0_1_0, "lr_scheduler": "polynomial", "lora": {"r": 8, "alpha": "much"}})

    assert (spec.lr_scheduler, spec.max_steps, spec.tuning) == ("cosine", 7, "full")
    with pytest.raises(FailedPrecondition, match=r"spec\.lora: another release"):
        spec.require_readable()


@pytest.mark.parametrize("name", ["method", "tuning"])
def test_tuning_is_read_under_both_its_names(name: str) -> None:
    assert resolve(RECIPES, "lora", {name: "full"}).tuning == "full"


def test_two_names_that_disagree_are_refused() -> None:
    assert resolve(RECIPES, "lora", {"method": "full", "tuning": "full"}).tuning == "full"
    with pytest.raises(InvalidArgument, match=r"older name of spec\.tuning"):
        resolve(RECIPES, "lora", {"method": "full", "tuning": "lora"})


def test_overrides_change_one_option_and_keep_the_rest() -> None:
    spec = resolve(RECIPES, "qlora", {"max_steps": 7, "lora": {"r": 8}})

    expected = RECIPES["qlora"].spec
    assert spec == expected.model_copy(update={"max_steps": 7, "lora": expected.lora.model_copy(update={"r": 8})})


def test_an_explicit_zero_overrides() -> None:
    message = jobs_pb2.TrainingSpec(save_steps=0, packing=False, lora=jobs_pb2.LoraSpec(dropout=0.0))

    spec = resolve(RECIPES, "qlora", mapping.overrides(message))

    assert (spec.save_steps, spec.packing) == (0, False)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(NotFound, match="full, lora, qlora") as caught:
        resolve(RECIPES, "magic", {})

    assert caught.value.field == "recipe"


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"max_stepz": 1}, "spec.max_stepz"),
        ({"lora": {"rank": 8}}, "spec.lora.rank"),
        ({"lora": 8}, "spec.lora"),
        ({"lora": {"r": 0}}, "spec.lora.r"),
        ({"lora": {"r": 513}}, "spec.lora.r"),
        ({"lora": {"alpha": 0}}, "spec.lora.alpha"),
        ({"lora": {"alpha": float("inf")}}, "spec.lora.alpha"),
        ({"lora": {"dropout": 1.0}}, "spec.lora.dropout"),
        ({"num_epochs": 0}, "spec.num_epochs"),
        ({"max_steps": -1}, "spec.max_steps"),
        ({"batch_size": 0}, "spec.batch_size"),
        ({"gradient_accumulation_steps": 5000}, "spec.gradient_accumulation_steps"),
        ({"learning_rate": 0}, "spec.learning_rate"),
        ({"learning_rate": 1.5}, "spec.learning_rate"),
        ({"learning_rate": float("nan")}, "spec.learning_rate"),
        ({"max_grad_norm": float("inf")}, "spec.max_grad_norm"),
        ({"max_grad_norm": -1}, "spec.max_grad_norm"),
        ({"lr_scheduler": "step"}, "spec.lr_scheduler"),
        ({"warmup_ratio": 1.01}, "spec.warmup_ratio"),
        ({"max_length": 7}, "spec.max_length"),
        ({"seed": -1}, "spec.seed"),
        ({"logging_steps": 0}, "spec.logging_steps"),
        ({"sample_prompts": ("hi",) * 33}, "spec.sample_prompts"),
        ({"method": 7}, "spec.method"),
        ({"tuning": 7}, "spec.tuning"),
        ({"objective": "dpo"}, "spec.objective"),
        ({"method": "full"}, "spec.quantization"),
    ],
)
def test_a_bad_option_is_named(overrides: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=field) as caught:
        resolve(RECIPES, "qlora", overrides)

    assert caught.value.field == field


def test_a_full_fine_tune_of_four_bit_weights_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidArgument, match="needs quantization none"):
        resolve(RECIPES, "full", {"quantization": "nf4"})

    assert resolve(RECIPES, "qlora", {"method": "full", "quantization": "none"}).tuning == "full"
