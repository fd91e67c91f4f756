"""Formats that are known by sight and not read yet: refused by name, with the way to rows that are."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloom_data.conversations import RowError
from tuneloom_data.readers.reader import NO_MATCH, Match, Row, is_given

_ROW = "{'messages': [{'role': 'user', 'content': …}, {'role': 'assistant', 'content': …}]}"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A format known by its fields. `marks` are alternatives; each names fields that must all be there."""

    name: str
    marks: tuple[tuple[str, ...], ...]
    next_step: str
    confidence: float = 0.7

    def sniff(self, value: Row) -> Match:
        for mark in self.marks:
            if value.keys() >= {*mark}:
                return Match(self.confidence, mark[0])
        return NO_MATCH

    def read(self, row: int, value: Row) -> RowError:
        return RowError(row, self.sniff(value).field, f"this looks like the {self.name} format; {self.next_step}")


_VERDICT_WORDS = {"true", "false", "good", "bad", "chosen", "rejected", "desirable", "undesirable"}


@dataclass(frozen=True, slots=True)
class Preference:
    """Answers with a judgement: pairs (DPO, ORPO) or labels (KTO). As plain rows the bad ones would be imitated."""

    name: str = "preference"

    def sniff(self, value: Row) -> Match:
        for field in _PREFERENCE_FIELDS:
            if is_given(value.get(field)):
                return Match(1.0, field)
        if ("messages" in value or "completion" in value) and _is_verdict(value.get("label")):
            return Match(1.0, "label")
        bare = next((field for field in _PREFERENCE_FIELDS if field in value), "")
        return Match(0.8, bare) if bare and "messages" not in value else NO_MATCH

    def read(self, row: int, value: Row) -> RowError:
        field = self.sniff(value).field
        if field in ("label", "kto_tag"):
            return RowError(
                row,
                field,
                "this looks like preference data (KTO); objective sft would learn the bad answers too. Keep the rows "
                f"with good answers only, without {field!r}",
            )
        return RowError(
            row,
            field,
            "this looks like preference data (pairs of a good and a bad answer); objective sft learns one answer. Keep "
            f"the good one as the last message of {_ROW}, without {field!r}",
        )


_PREFERENCE_FIELDS = (
    "chosen",
    "rejected",
    "rejected_response",
    "rejected_responses",
    "rejected_messages",
    "preferred_output",
    "non_preferred_output",
    "kto_tag",
)


def _is_verdict(label: object) -> bool:
    """A judgement rather than a note such as a topic."""
    if isinstance(label, str):
        return label.strip().lower() in _VERDICT_WORDS or label.strip() in ("0", "1", "-1")
    return isinstance(label, (bool, int, float)) and is_given(label)


RECOGNISED = (
    Preference(),
    Recognised(
        "Alpaca",
        (("instruction", "output"), ("instruction", "response"), ("instruction",)),
        f"write instruction and input as the user turn and output as the answer: {_ROW}",
    ),
    Recognised(
        "ShareGPT",
        (("conversations",),),
        f"write 'from' as role (human is user, gpt is assistant) and 'value' as content: {_ROW}",
    ),
    Recognised(
        "XTuner",
        (("conversation",),),
        f"write each turn's system, input and output as messages of role system, user and assistant: {_ROW}",
    ),
    Recognised(
        "OASST1",
        (("message_id", "parent_id"), ("message_tree_id",), ("prompt", "replies")),
        f"write each path from a question to its last answer as one row: {_ROW}",
        confidence=0.8,
    ),
    Recognised(
        "prompt/completion",
        (("prompt", "completion"), ("prompt", "response"), ("query", "response"), ("question", "answer"), ("prompt",)),
        f"write the prompt as the user turn and the completion as the answer: {_ROW}",
        confidence=0.6,
    ),
    Recognised(
        "single message",
        (("role", "content"),),
        f"a row holds a whole conversation, so put its messages into one list: {_ROW}",
        confidence=0.6,
    ),
    Recognised(
        "plain text",
        (("text",),),
        f"objective sft learns answers, so split the text into questions and answers: {_ROW}",
        confidence=0.4,
    ),
)
