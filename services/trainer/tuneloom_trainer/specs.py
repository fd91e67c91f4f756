"""The job spec: one typed value from the request to the worker. Names, types, limits and defaults are here.

The contract's TrainingSpec has the same names, recipes/*.toml hold what differs from the defaults. Two rules let every
stored spec load for ever: a default never changes, because it is also what a spec stored before the option existed
means (a better value goes into the recipes), and limits only widen.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound

LARGEST_RANK = 512  # of any engine
RENAMED = {"method": "tuning"}  # older names that are still read; the contract's old field is written from a property


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class LoraSpec(_Part):
    """The adapter: update = (alpha / r, or alpha / sqrt(r) with rslora) * B @ A."""

    r: int = Field(default=16, ge=1, le=LARGEST_RANK)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    use_rslora: bool = False


class TrainingSpec(_Part):
    """Every option of a job, resolved."""

    objective: Literal["sft"] = "sft"
    tuning: Literal["lora", "full"] = "lora"
    quantization: Literal["none", "nf4"] = "none"
    lora: LoraSpec = LoraSpec()
    num_epochs: float = Field(default=3.0, gt=0, le=10_000)
    max_steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=2, ge=1, le=4096)
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=4096)
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, ge=0)
    max_length: int = Field(default=2048, ge=8, le=1 << 20)
    packing: bool = True
    seed: int = Field(default=42, ge=0, lt=1 << 63)
    save_steps: int = Field(default=100, ge=0)
    logging_steps: int = Field(default=5, ge=1)
    sample_prompts: tuple[str, ...] = Field(default=(), max_length=32)
    sample_steps: int = Field(default=0, ge=0)
    sample_system_prompt: str = Field(default="", max_length=16_384)
    neftune_noise_alpha: float = Field(default=0.0, ge=0, le=1000)
    max_unusable_share: float = Field(default=0.05, ge=0, le=1)
    _unreadable: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any) -> Any:
        return renamed(values) if isinstance(values, Mapping) else values

    @field_validator("quantization")
    @classmethod
    def _trainable(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("tuning") == "full" and value != "none":
            raise ValueError("a full fine-tune needs quantization none: 4-bit weights cannot be trained")
        return value

    @property
    def method(self) -> str:
        """The older name of `tuning`."""
        return self.tuning

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> TrainingSpec:
        """A spec as any release stored it: unknown options are passed over, missing ones have their defaults.

        An option whose value this release cannot read shows its default, so that the job can still be listed, and
        `require_readable` refuses to run it.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            unreadable = {str(problem["loc"][0]) for problem in error.errors()}
        spec = cls.model_validate({key: value for key, value in renamed(values).items() if key not in unreadable})
        spec._unreadable = tuple(sorted(unreadable))
        return spec

    def require_readable(self) -> None:
        """Raises FailedPrecondition when an option that was stored could not be read."""
        if self._unreadable:
            raise FailedPrecondition(
                f"spec.{self._unreadable[0]}: another release stored a value that this one does not know; run the "
                "job with that release, or submit it again",
                reason="SPEC_UNREADABLE",
            )


class Recipe(_Part):
    """A named set of differences from the defaults."""

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
            spec = override(TrainingSpec(), data.get("spec", {}))
            recipes[name] = Recipe(name=name, description=data["description"], spec=spec)
    return recipes


def resolve(recipes: Mapping[str, Recipe], name: str, overrides: Mapping[str, Any]) -> TrainingSpec:
    """Recipe plus overrides; raises with the recipe or field that is unknown or out of range."""
    recipe = recipes.get(name)
    if recipe is None:
        known = ", ".join(recipes)
        raise NotFound(f"recipe: {name!r} does not exist; choose one of {known}", field="recipe")
    return override(recipe.spec, overrides)


def override(spec: TrainingSpec, overrides: Mapping[str, Any]) -> TrainingSpec:
    """The spec with some options changed; raises InvalidArgument with the field that is unknown or out of range."""
    for old, new in RENAMED.items():
        if old in overrides and new in overrides and overrides[old] != overrides[new]:
            raise InvalidArgument(
                f"spec.{old}: is the older name of spec.{new} and says something else; set one of them",
                field=f"spec.{old}",
            )
    values = spec.model_dump()
    for key, value in renamed(overrides).items():
        nested = isinstance(values.get(key), dict) and isinstance(value, dict)
        values[key] = {**values[key], **value} if nested else value
    try:
        return TrainingSpec.model_validate(values, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        names = {new: old for old, new in RENAMED.items() if old in overrides and new not in overrides}
        field = ".".join(("spec", *(names.get(str(part), str(part)) for part in first["loc"])))
        raise InvalidArgument(
            f"{field}: {first['msg']}; the options and their defaults are in 'tuneloom jobs recipes'",
            field=field,
        ) from None


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names of today; a value under its own name wins over one under an older name."""
    older = {RENAMED[key]: value for key, value in values.items() if key in RENAMED}
    return {**older, **{key: value for key, value in values.items() if key not in RENAMED}}
