"""A PEFT LoRA adapter on disk: what it updates, and whether an engine can serve it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloom_common.manifests import Lora
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.weights.headers import FLOAT_TYPES, TensorSlice, read_header

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "biases in LoRA layers",
    "modules_to_save": "fully trained modules",
    "layer_replication": "layer replication",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "updates of bare parameters",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}


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


def read_adapter(directory: Path) -> Adapter:
    """Reads and validates; raises Refusal naming what an engine would refuse."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise Refusal("ADAPTER_INVALID", f"{name} is missing; an adapter is what PEFT's save_pretrained writes")
    config = _read_config(directory / CONFIG_FILE)
    check_servable(config)
    pairs: dict[str, dict[str, TensorSlice]] = {}
    for name, tensor in read_header(directory / WEIGHTS_FILE).items():
        match = _KEY.fullmatch(name)
        if match is None:
            raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE}: {name} is not a LoRA weight")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor
    updates = {}
    for module, sides in pairs.items():
        if sides.keys() != {"A", "B"}:
            raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE}: {module} has only lora_{''.join(sides)}")
        if any(len(side.shape) != 2 or side.dtype not in FLOAT_TYPES for side in sides.values()):
            raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE}: {module} is not a pair of matrices of floats")
        rank = sides["A"].shape[0]
        if sides["B"].shape[1] != rank or sides["A"].size == 0 or rank != _for_module(config, "rank", module):
            raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE}: shapes of {module} do not fit the rank in {CONFIG_FILE}")
        alpha = _for_module(config, "alpha", module)
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        updates[f"{module}.weight"] = Update(module, sides["A"], sides["B"], scale)
    if not updates:
        raise Refusal("ADAPTER_INVALID", f"{WEIGHTS_FILE} holds no LoRA weights")
    return Adapter(config["r"], config["lora_alpha"], bool(config.get("use_rslora")), updates)


def _read_config(path: Path) -> dict[str, Any]:
    config: Any = json.loads(path.read_bytes())
    known = isinstance(config, dict) and isinstance(config.get("r"), int)
    if not known or not isinstance(config.get("lora_alpha"), (int, float)):
        raise Refusal("ADAPTER_INVALID", f"{path.name}: r and lora_alpha must be numbers")
    return config  # type: ignore[no-any-return]


def check_servable(config: dict[str, Any]) -> None:
    """Refuses what vLLM refuses, so it is said now and not at the first request."""
    for key, what in _REFUSED.items():
        if config.get(key):
            raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: {key} is set; engines do not serve {what}")
    if config.get("peft_type", "LORA") != "LORA":
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: peft_type is {config['peft_type']!r}; engines serve LoRA")
    if config.get("bias", "none") != "none":
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: bias is {config['bias']!r}; engines need 'none'")
    if config.get("init_lora_weights") not in (True, False, "gaussian", None):
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: init_lora_weights changes the base weights")
    if config.get("fan_in_fan_out"):
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: fan_in_fan_out layers (GPT-2 style) are not supported")


def _for_module(config: dict[str, Any], what: str, module: str) -> Any:
    """Rank or alpha of one module: an entry of the pattern wins over the default."""
    for pattern, value in (config.get(f"{what}_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return config["r" if what == "rank" else "lora_alpha"]
