"""The resolved training spec: what a worker is told to do. Defaults live in recipes/*.toml, limits here."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tuneloom_common.errors import InvalidArgument, NotFound

LARGEST_RANK = 512  # of any engine


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraSpec(_Part):
    """The adapter: update = (alpha / r, or alpha / sqrt(r) with rslora) * B @ A."""

    r: int = Field(ge=1, le=LARGEST_RANK)
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    use_rslora: bool


class TrainingSpec(_Part):
    """Every option of a job, resolved."""

    method: Literal["lora", "full"]
    quantization: Literal["none", "nf4"]
    lora: LoraSpec
    num_epochs: float = Field(gt=0, le=10_000)
    max_steps: int = Field(ge=0)
    batch_size: int = Field(ge=1, le=4096)
    gradient_accumulation_steps: int = Field(ge=1, le=4096)
    learning_rate: float = Field(gt=0, le=1)
    lr_scheduler: Literal["cosine", "linear", "constant"]
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0, le=1)
    max_grad_norm: float = Field(ge=0)
    max_length: int = Field(ge=8, le=1 << 20)
    packing: bool
    seed: int = Field(ge=0, lt=1 << 63)
    save_steps: int = Field(ge=0)
    logging_steps: int = Field(ge=1)
    sample_prompts: tuple[str, ...] = Field(default=(), max_length=32)

    @field_validator("quantization")
    @classmethod
    def _trainable(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("method") == "full" and value != "none":
            raise ValueError("a full fine-tune needs quantization none: 4-bit weights cannot be trained")
        return value


class Recipe(_Part):
    """A named set of defaults."""

    name: str
    description: str
    spec: TrainingSpec


def load_recipes() -> dict[str, Recipe]:
    """Every recipe shipped with the trainer, by name."""
    recipes = {}
    for entry in sorted(files("tuneloom_trainer.recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            data = tomllib.loads(entry.read_text(encoding="utf-8"))
            name = entry.name.removesuffix(".toml")
            recipes[name] = Recipe.model_validate({"name": name, **data})
    return recipes


def resolve(recipes: dict[str, Recipe], name: str, overrides: dict[str, Any]) -> TrainingSpec:
    """Recipe plus overrides; raises with the field that is unknown or out of range."""
    recipe = recipes.get(name)
    if recipe is None:
        known = ", ".join(recipes)
        raise NotFound(f"recipe: {name!r} does not exist; choose one of {known}", field="recipe")
    merged = recipe.spec.model_dump()
    for key, value in overrides.items():
        merged[key] = (
            {**merged[key], **value} if isinstance(merged.get(key), dict) and isinstance(value, dict) else value
        )
    try:
        return TrainingSpec.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("spec", *(str(part) for part in first["loc"])))
        raise InvalidArgument(
            f"{field}: {first['msg']}; the options and their defaults are in 'tuneloom jobs recipes'",
            field=field,
        ) from None
