"""The proof: does the merged model answer as base plus adapter does?

The adapter writes its greedy answer to every held-out prompt; then base, base plus adapter and merged model score
the same tokens. Where the merged model's best token equals the adapter's at every position of an answer, its own
greedy answer is that very answer, so agreement 1.0 means token-for-token equality.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tuneloom_common.manifests import Proof
from tuneloom_registry.refusals import Refusal

MAX_NEW_TOKENS = 32
DEFAULT_PROMPTS = (
    "Hello!",
    "Who are you?",
    "What can you do for me?",
    "What is the capital of France?",
    "How much is 3 plus 4?",
    "你好",
    "你是谁？",
    "法国的首都是哪里？",
)


def prove(
    base: Path,
    adapter: Path,
    merged: Path,
    *,
    prompts: Sequence[str],
    dtype: str,
    min_greedy_agreement: float,
) -> Proof:
    """Measures; raises Refusal when the merged model is not the adapter's equal, or nothing was tested."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    adapted = PeftModel.from_pretrained(_load(base, dtype), adapter).eval()
    answers = [_greedy(adapted, tokenizer, prompt) for prompt in prompts]
    with_adapter = [_scores(adapted, *answer) for answer in answers]
    with adapted.disable_adapter():
        base_alone = [_scores(adapted, *answer) for answer in answers]
    del adapted
    gc.collect()
    model = _load(merged, dtype)
    with_merge = [_scores(model, *answer) for answer in answers]

    if not all(scores.isfinite().all() for scores in (*with_adapter, *with_merge, *base_alone)):
        raise Refusal("PROOF_FAILED", "a model computes NaN or infinity on the proof prompts; it was not registered")
    proof = _compare(with_adapter, with_merge, base_alone, dtype)
    if proof.adapter_effect == 0.0:
        raise Refusal(
            "NO_EFFECT",
            "the adapter changes no logit on any proof prompt, so the proof would show nothing; was it trained at "
            "all? Give proof prompts from its own topic",
        )
    if proof.greedy_agreement < min_greedy_agreement:
        raise Refusal(
            "PROOF_FAILED",
            f"the merged model agrees with the adapter on {proof.greedy_agreement:.1%} of {proof.positions} greedy "
            f"tokens (needed: {min_greedy_agreement:.1%}, largest logit difference {proof.max_logit_diff:.4g}); it "
            "was not registered, serve the adapter instead",
        )
    return proof


def _load(directory: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM, GenerationConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
    )
    model.generation_config = GenerationConfig()  # the base's own may penalise repetition: that is not greedy
    return model.eval()


def _greedy(model: Any, tokenizer: Any, prompt: str) -> tuple[torch.Tensor, int]:
    """(prompt and greedy answer as [1, length] token ids, length of the prompt)."""
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(
            **encoded,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return tokens, encoded["input_ids"].shape[1]


def _scores(model: Any, tokens: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Logits [answer length, vocabulary] in float32 that predict the answer's tokens."""
    with torch.inference_mode():
        logits = model(input_ids=tokens).logits
    return logits[0, prompt_length - 1 : -1].float().cpu()  # type: ignore[no-any-return]


def _compare(adapted: list[torch.Tensor], merged: list[torch.Tensor], base: list[torch.Tensor], dtype: str) -> Proof:
    def over_all(measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return torch.cat([measure(a, m) for a, m in zip(adapted, merged, strict=True)])

    agreed = over_all(lambda a, m: (a.argmax(-1) == m.argmax(-1)).float())
    difference = over_all(lambda a, m: (a - m).abs().amax(-1))
    divergence = over_all(lambda a, m: (a.softmax(-1) * (a.log_softmax(-1) - m.log_softmax(-1))).sum(-1).clamp_min(0))
    effect = max(float((a - b).abs().max()) for a, b in zip(adapted, base, strict=True))
    return Proof(
        prompts=len(adapted),
        positions=len(agreed),
        greedy_agreement=float(agreed.mean()),
        max_logit_diff=float(difference.max()),
        mean_kl=float(divergence.mean()),
        adapter_effect=effect,
        dtype=dtype,
    )
