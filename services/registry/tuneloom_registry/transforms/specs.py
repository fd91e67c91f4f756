"""What crosses the child's boundary: the spec goes in, a result or a refusal comes out.

Readers ignore what they do not know and every option has a default, so service and child may differ in version.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Lora, Proof

Answer = TypeVar("Answer", "TransformResult", "TransformNeeds")
ActionName = Literal["convert", "merge"]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def write(self, path: Path) -> None:
        """Whole or not at all: a reader never sees half of it."""
        staged = path.with_name(f"{path.name}.part")
        with staged.open("w") as file:
            file.write(self.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        staged.rename(path)


class TransformSpec(_Wire):
    """One transform. `base_name` is the engine's name of the base; the merge options are ignored by a conversion.

    The limits are the child's own, of its wall clock and of its private memory; None means none.
    """

    action: ActionName
    base_name: str
    max_shard_size_bytes: int = Field(default=2_000_000_000, ge=1)
    proof_prompts: tuple[str, ...] = ()
    min_greedy_agreement: float = 0.99
    proof_dtype: Literal["float32", "bfloat16"] = "float32"
    time_limit_seconds: float | None = Field(default=None, gt=0)
    memory_limit_bytes: int | None = Field(default=None, gt=0)


class _Verdict(_Wire):
    ok: bool


class TransformResult(_Wire):
    """What lies in `out/`."""

    ok: Literal[True] = True
    kind: Kind
    lora: Lora | None = None
    proof: Proof | None = None


class TransformNeeds(_Wire):
    """Weight files of the base that the action needs whole, by path."""

    ok: Literal[True] = True
    base_weights: tuple[str, ...]


class TransformRefusal(_Wire):
    """Why nothing came out, for good."""

    ok: Literal[False] = False
    reason: str
    error: str


def read_spec(path: Path) -> TransformSpec:
    return TransformSpec.model_validate_json(path.read_bytes())


def read_answer(path: Path, answer: type[Answer]) -> Answer | TransformRefusal:
    """Raises ValueError for anything else, FileNotFoundError when there is none."""
    data = path.read_bytes()
    if _Verdict.model_validate_json(data).ok:
        return answer.model_validate_json(data)
    return TransformRefusal.model_validate_json(data)
