"""Loads the base and makes it trainable: in full, or with LoRA on weights held as stored or in NF4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloom_trainer.specs import TrainingSpec
from tuneloom_trainer.worker.protocol import WorkerFailed


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where to compute, and in which type."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def detect(cls, wanted: str) -> Hardware:
        """bf16 on GPUs (older ones emulate it); fp32 on CPUs, where 4-bit kernels are 20 times slower in bf16."""
        if wanted != "cpu" and torch.cuda.is_available():
            return cls(torch.device("cuda"), torch.bfloat16)
        if wanted == "cuda":
            raise WorkerFailed("NO_GPU", "device cuda was asked for and there is no GPU; use device auto or cpu")
        return cls(torch.device("cpu"), torch.float32)


def load_tokenizer(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_dir, local_files_only=True, trust_remote_code=False)


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
    if spec.tuning == "full":
        return model.train()
    return _with_lora(model, spec).train()


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


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
