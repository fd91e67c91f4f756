"""Recipes and overrides: resolved, or refused with the option's name."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_trainer import mapping
from tuneloom_trainer.specs import TrainingSpec, load_recipes, resolve

RECIPES = load_recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_to_itself_and_survives_the_wire(name: str) -> None:
    spec = resolve(RECIPES, name, {})
    sent = mapping.to_spec(spec.model_dump(mode="json"))

    assert spec == RECIPES[name].spec
    assert TrainingSpec.model_validate({**mapping.overrides(sent)} | zeros(spec)) == spec


def zeros(spec: TrainingSpec) -> dict[str, Any]:
    """What a wire message leaves out: nothing but empty lists."""
    return {} if spec.sample_prompts else {"sample_prompts": ()}


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

    assert resolve(RECIPES, "qlora", {"method": "full", "quantization": "none"}).method == "full"
