"""Conversation -> tokens and loss mask, by the model's own chat template.

Every trained assistant turn contributes its content and the stop token, and nothing else: not the role header,
not the newline some templates put behind the stop token. The spans are found on the rendered text, by comparing
the render up to a turn with the render including it, so no template needs to mark anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tuneloom_data.conversations import Conversation
from tuneloom_trainer.worker.protocol import WorkerFailed


@dataclass(frozen=True, slots=True)
class Example:
    """One rendered row. `tokens` and `trained` have equal length.

    `stop_token_trained` is about the template; `stops` counts the stop tokens that are left after cutting.
    """

    row: int
    tokens: list[int]
    trained: list[bool]
    truncated: bool
    stop_token_trained: bool
    stops: int = 1


def render(conversation: Conversation, tokenizer: Any, *, stop_tokens: Sequence[str], max_length: int) -> Example:
    """Renders and masks one row; cuts it at `max_length` tokens."""
    text, spans, stopped = _spans(conversation, tokenizer, stop_tokens)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = list(encoded["input_ids"])
    trained = _mask(encoded["offset_mapping"], spans)
    truncated = len(tokens) > max_length
    kept_end = encoded["offset_mapping"][:max_length][-1][1] if tokens else 0
    return Example(
        row=conversation.row,
        tokens=tokens[:max_length],
        trained=trained[:max_length],
        truncated=truncated,
        stop_token_trained=stopped,
        stops=sum(end <= kept_end for _, end in spans),
    )


def _spans(
    conversation: Conversation, tokenizer: Any, stop_tokens: Sequence[str]
) -> tuple[str, list[tuple[int, int]], bool]:
    """The whole text, the character spans that carry loss, and whether each ends with a stop token."""
    messages = [message.for_template() for message in conversation.messages]
    tools = list(conversation.tools) or None

    def rendered(count: int, *, open_turn: bool = False) -> str:
        try:
            text: str = tokenizer.apply_chat_template(
                messages[:count], tools=tools, tokenize=False, add_generation_prompt=open_turn
            )
        except (TemplateError, ValueError, LookupError, TypeError) as error:
            raise WorkerFailed(
                "CHAT_TEMPLATE",
                f"row {conversation.row}: the chat template refuses its first {count} messages: {error}; change the "
                "order of its roles, or remove the row",
            ) from error
        return text

    whole = rendered(len(messages))
    spans = []
    stopped = True
    for index, message in enumerate(conversation.messages):
        if not message.trained:
            continue
        before, after = rendered(index, open_turn=True), rendered(index + 1)
        if not (after.startswith(before) and whole.startswith(after)):
            raise WorkerFailed(
                "CHAT_TEMPLATE",
                f"row {conversation.row}: the chat template rewrites earlier turns when later ones are added, so the "
                f"loss on messages[{index}] cannot be placed; split the conversation into one row per answer",
            )
        end = _end_of_stop_token(after, len(before), stop_tokens)
        stopped = stopped and end is not None
        spans.append((len(before), len(after) if end is None else end))
    return whole, spans, stopped


def _end_of_stop_token(text: str, start: int, stop_tokens: Sequence[str]) -> int | None:
    ends = [text.rfind(stop, start) + len(stop) for stop in stop_tokens if text.rfind(stop, start) >= 0]
    end = max(ends, default=None)
    return end if end is not None and not text[end:].strip() else None


def _mask(offsets: Sequence[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """A token carries loss when it starts inside a span; spans are ordered and disjoint."""
    trained, current = [], 0
    for start, _ in offsets:
        while current < len(spans) and start >= spans[current][1]:
            current += 1
        trained.append(current < len(spans) and start >= spans[current][0])
    return trained
