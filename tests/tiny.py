"""A model of a few thousand random weights and a byte-level tokenizer with a ChatML template, made in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(directory: Path, *, template: str = CHATML) -> None:
    """One token per byte, besides the special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text) for text in ("<|im_end|>", "<|im_start|>", "<|pad|>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = template
    fast.save_pretrained(directory)


def save_base(directory: Path, *, template: str = CHATML, broken: bool = False) -> None:
    """A base model's directory; a broken one has a weight that is not a number."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.set_num_threads(1)  # threads only wait for each other over matrices as small as these
    save_tokenizer(directory, template=template)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=256,
        pad_token_id=258,
    )
    model = Qwen2ForCausalLM(config)
    if broken:
        model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(directory)


def save_rows(path: Path, rows: list[list[dict[str, Any]]]) -> None:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
