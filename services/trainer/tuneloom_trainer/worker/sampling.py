"""Sample chats: what the model in training says now, greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

MAX_NEW_TOKENS = 48


def sample_chats(model: Any, tokenizer: Any, prompts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (prompt, answer). The model is put back into training mode afterwards."""
    model.eval()
    try:
        for prompt in prompts:
            encoded = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
            with torch.inference_mode():
                output = model.generate(
                    **encoded,
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    use_cache=True,
                    pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
            answer = tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
            yield prompt, answer.strip()
    finally:
        model.train()
