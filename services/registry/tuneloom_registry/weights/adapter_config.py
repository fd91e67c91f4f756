"""`adapter_config.json` as PEFT writes it: what we use of it, and what no engine serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuneloom_registry.refusals import Refusal

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 8 << 20  # a rank for each of 50,000 modules
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


class AdapterConfig(BaseModel):
    """Patterns are regular expressions over module names; options we do not use are kept as they came."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    r: int = Field(ge=1)
    lora_alpha: float
    use_rslora: bool | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None

    @property
    def other_patterns(self) -> tuple[str, ...]:
        """Lists are names, a single string is a pattern."""
        chosen = (self.target_modules, self.exclude_modules)
        return tuple(pattern for pattern in chosen if isinstance(pattern, str))

    @property
    def others(self) -> dict[str, Any]:
        return self.model_extra or {}


def read_config(path: Path) -> AdapterConfig:
    """Raises Refusal for a configuration that is none, or that no engine serves."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise Refusal("ADAPTER_INVALID", f"{path.name} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        config = AdapterConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        raise Refusal("ADAPTER_INVALID", f"{path.name}: {where}: {first['msg']}".replace(": :", ":")) from None
    check_servable(config)
    return config


def check_servable(config: AdapterConfig) -> None:
    """Refuses what vLLM refuses, so it is said now and not at the first request."""
    others = config.others
    for key, what in _REFUSED.items():
        if others.get(key):
            raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: {key} is set; engines do not serve {what}")
    if others.get("peft_type", "LORA") != "LORA":
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: peft_type is {others['peft_type']!r}; engines serve LoRA")
    if others.get("bias", "none") != "none":
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: bias is {others['bias']!r}; engines need 'none'")
    if others.get("init_lora_weights") not in (True, False, "gaussian", None):
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: init_lora_weights changes the base weights")
    if others.get("fan_in_fan_out"):
        raise Refusal("NOT_SERVABLE", f"{CONFIG_FILE}: fan_in_fan_out layers (GPT-2 style) are not supported")
