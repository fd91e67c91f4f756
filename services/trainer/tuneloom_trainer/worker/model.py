"""Loads the base and makes it trainable: in full, or with LoRA on weights held as stored or in NF4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.hardware import Hardware
from tuneloom_trainer.worker.protocol import WorkerFailed


def load_model(base_dir: Path, spec: TrainingSpec, hardware: Hardware) -> Any:
    """The model, trainable as the spec says, in training mode on its device."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(spec.seed)
    options: dict[str, Any] = {}
    if spec.quantization == "nf4":
        options["quantization_config"] = _nf4(hardware.dtype)
    master_dtype = torch.float32 if spec.tuning == "full" else hardware.dtype
    model = AutoModelForCausalLM.from_pretrained(
        base_dir,
        dtype=master_dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        device_map={"": hardware.device},
        **options,
    )
    _keep_trainable_after_eval(model)
    model.config.use_cache = False
    if hardware.device.type == "cuda":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if spec.tuning == "lora":
        model = _with_lora(model, spec)
    if spec.neftune_noise_alpha:
        add_embedding_noise(model, alpha=spec.neftune_noise_alpha)
    return model.train()


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def adapter_config(model: Any) -> dict[str, Any] | None:
    """PEFT's own description of the adapter, None for a full fine-tune."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    fields: dict[str, Any] = configs["default"].to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in fields.items()}


def add_embedding_noise(model: Any, *, alpha: float) -> None:
    """NEFTune (Jain et al. 2023, arXiv:2310.05914): uniform noise of alpha / sqrt(L * d) on embeddings, in training.

    L is the number of tokens of the example a position belongs to, d the embedding's width; padding stays as it is.
    """
    lengths: list[torch.Tensor] = []

    def note_lengths(_model: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        lengths[:] = [example_lengths(kwargs["position_ids"])] if "position_ids" in kwargs else []

    def add_noise(embedding: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        if not (embedding.training and lengths):
            return output
        length = lengths[0].to(output.device).unsqueeze(-1)
        scale = torch.where(length > 1, alpha / (length * output.shape[-1]).sqrt(), 0.0)
        return output + (torch.rand_like(output) * 2 - 1) * scale.to(output.dtype)

    model.register_forward_pre_hook(note_lengths, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(add_noise)


def example_lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """How long the example of each position is; positions start over with every example. Padding has length 1."""
    owner = (position_ids == 0).cumsum(dim=1)
    counts = torch.zeros_like(position_ids).scatter_add(1, owner - 1, torch.ones_like(position_ids))
    return counts.gather(1, owner - 1)


def _keep_trainable_after_eval(model: Any) -> None:
    # On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first forward in eval mode, for good, and
    # its kernel for them has no gradient: sample chats would end the training.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _nf4(compute_dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def _with_lora(model: Any, spec: TrainingSpec) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = spec.lora
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        target_modules=list(lora.target_modules) or "all-linear",
        bias="none",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise WorkerFailed("TARGET_MODULES", f"spec.lora.target_modules: {error}") from error
    for parameter in trainable_parameters(adapted).values():
        parameter.data = parameter.data.float()
    return adapted
