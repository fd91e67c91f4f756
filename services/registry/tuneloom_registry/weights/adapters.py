"""A PEFT LoRA adapter on disk: what it updates, and whether an engine can serve it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common.manifests import Lora
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.weights.adapter_config import CONFIG_FILE, AdapterConfig, read_config
from tuneloom_registry.weights.headers import FLOAT_TYPES, TensorSlice, read_header
from tuneloom_registry.weights.patterns import MATCH_SECONDS, Overrides, bounded_matching, probe

WEIGHTS_FILE = "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class Update:
    """delta = scale * B @ A for one weight matrix; A is [r, in], B is [out, r]."""

    module: str
    a: TensorSlice
    b: TensorSlice
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A validated adapter, its updates by base tensor name."""

    r: int
    alpha: float
    rslora: bool
    updates: dict[str, Update]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(sorted({update.module.rpartition(".")[2] for update in self.updates.values()}))

    @property
    def lora(self) -> Lora:
        """For the manifest."""
        return Lora(r=self.r, alpha=self.alpha, targets=self.targets, rslora=self.rslora)


def read_adapter(directory: Path, *, base_tensors: Iterable[str] = (), seconds: float = MATCH_SECONDS) -> Adapter:
    """Reads and validates; raises Refusal naming what an engine would refuse.

    Patterns get `seconds` of CPU time, also for the modules of a base that PEFT is going to match them with.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise Refusal("ADAPTER_INVALID", f"{name} is missing; an adapter is what PEFT's save_pretrained writes")
    config = read_config(directory / CONFIG_FILE)
    pairs = _read_pairs(directory / WEIGHTS_FILE)
    try:
        with bounded_matching(seconds):
            for pattern in config.other_patterns:
                probe(pattern, (*pairs, *_modules(base_tensors)))
            updates = _updates(config, pairs)
    except ValueError as error:
        raise Refusal("ADAPTER_INVALID", f"{CONFIG_FILE}: {error}") from None
    return Adapter(config.r, config.lora_alpha, bool(config.use_rslora), updates)


def _read_pairs(path: Path) -> dict[str, tuple[TensorSlice, TensorSlice]]:
    """(A, B) by module."""
    found: dict[str, dict[str, TensorSlice]] = {}
    for name, tensor in read_header(path).items():
        match = _KEY.fullmatch(name)
        if match is None:
            raise Refusal("ADAPTER_INVALID", f"{path.name}: {name} is not a LoRA weight")
        found.setdefault(match["module"], {})[match["side"]] = tensor
    if not found:
        raise Refusal("ADAPTER_INVALID", f"{path.name} holds no LoRA weights")
    for module, sides in found.items():
        if sides.keys() != {"A", "B"}:
            raise Refusal("ADAPTER_INVALID", f"{path.name}: {module} has only lora_{''.join(sides)}")
        if any(len(side.shape) != 2 or side.dtype not in FLOAT_TYPES for side in sides.values()):
            raise Refusal("ADAPTER_INVALID", f"{path.name}: {module} is not a pair of matrices of floats")
    return {module: (sides["A"], sides["B"]) for module, sides in found.items()}


def _updates(config: AdapterConfig, pairs: dict[str, tuple[TensorSlice, TensorSlice]]) -> dict[str, Update]:
    ranks, alphas = Overrides(config.rank_pattern or {}), Overrides(config.alpha_pattern or {})
    updates = {}
    for module, (a, b) in pairs.items():
        rank = a.shape[0]
        if b.shape[1] != rank or a.size == 0 or rank != ranks.get(module, config.r):
            raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE}: shapes of {module} do not fit the rank in {CONFIG_FILE}")
        scale = alphas.get(module, config.lora_alpha) / (math.sqrt(rank) if config.use_rslora else rank)
        updates[f"{module}.weight"] = Update(module, a, b, scale)
    return updates


def _modules(tensors: Iterable[str]) -> list[str]:
    """The modules that hold the tensors, and the modules that hold those."""
    found: dict[str, None] = {}
    for name in tensors:
        while name := name.rpartition(".")[0]:
            found[name] = None
    return list(found)
