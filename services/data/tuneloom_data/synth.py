"""Writes self-cognition dialogues: an assistant that knows its own name and maker, and forgets nothing else.

Questions come from patterns (`[one|other]` is a choice) with varied openings, case and punctuation; every
kind of question has one answer per language. Dialogues of a given mix keep the model's other skills.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Final

from tuneloom_data.conversations import TrainingRow as Row
from tuneloom_data.mix import read_mix
from tuneloom_data.questions import ENDINGS, OPENINGS, QUESTIONS, SYSTEM_PROMPTS

__all__ = ["Row", "read_mix", "self_cognition"]

_CHOICE: Final = re.compile(r"\[([^\]]*)\]")

_SYSTEM_SHARE: Final = 0.1
_CONTINUED_SHARE: Final = 0.1
_KINDS: Final = ("who", "name", "maker")
_KIND_WEIGHTS: Final = (4, 4, 2)


def self_cognition(
    *,
    name: str,
    author: str,
    rows: int,
    mix: Sequence[Row],
    mix_share: float,
    seed: int,
    languages: Sequence[str] = ("en", "zh"),
) -> list[Row]:
    """`rows` shuffled dialogues, the share `mix_share` of them from `mix`; same arguments, same rows.

    A mix smaller than its share is repeated. Raises ValueError for an empty name or author, an unknown
    language, a share outside 0..1, or a share above 0 without a mix.
    """
    _check(name=name, author=author, rows=rows, mix=mix, mix_share=mix_share, languages=languages)
    rng = random.Random(seed)
    mixed = round(rows * mix_share)
    result = [_copy(row) for row in _draw(rng, mix, mixed)]
    answered = [row for row in mix if mixed and row["messages"][-1].get("role") == "assistant"]
    for index in range(rows - mixed):
        history = rng.choice(answered) if answered and rng.random() < _CONTINUED_SHARE else None
        language = languages[index % len(languages)]
        result.append(_dialogue(rng, language, name=name.strip(), author=author.strip(), history=history))
    rng.shuffle(result)
    return result


def _check(
    *, name: str, author: str, rows: int, mix: Sequence[Row], mix_share: float, languages: Sequence[str]
) -> None:
    if not name.strip() or not author.strip():
        raise ValueError("name and author must not be empty")
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    if not 0 <= mix_share <= 1:
        raise ValueError(f"mix_share must lie between 0 and 1, not {mix_share}")
    if mix_share and not mix:
        raise ValueError("mix_share is above 0 but the mix is empty; give ordinary dialogues or a share of 0")
    bad = next((number for number, row in enumerate(mix, start=1) if not _has_messages(row)), 0)
    if bad:
        raise ValueError(f"row {bad} of the mix has no messages; read the mix with read_mix, which says what is wrong")
    unknown = sorted(set(languages) - set(QUESTIONS))
    if unknown or not languages:
        raise ValueError(f"languages must be some of {sorted(QUESTIONS)}, not {list(languages)}")


def _has_messages(row: object) -> bool:
    messages = row.get("messages") if isinstance(row, dict) else None
    return isinstance(messages, list) and bool(messages) and all(isinstance(message, dict) for message in messages)


def _draw(rng: random.Random, mix: Sequence[Row], count: int) -> list[Row]:
    """`count` rows: the whole mix as often as it fits, then a sample of it."""
    if not count:
        return []
    whole, rest = divmod(count, len(mix))
    return [*mix] * whole + rng.sample([*mix], rest)


def _dialogue(rng: random.Random, language: str, *, name: str, author: str, history: Row | None) -> Row:
    """One question about the assistant, alone, after a system prompt, or continuing a dialogue."""
    kind = rng.choices(_KINDS, _KIND_WEIGHTS)[0]
    messages: list[dict[str, Any]] = []
    if history is not None:
        messages = _copy(history)["messages"]
    elif rng.random() < _SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS[language])})
    messages.append({"role": "user", "content": _question(rng, language, kind)})
    messages.append({"role": "assistant", "content": _answer(language, kind, name=name, author=author)})
    return {"messages": messages}


def _question(rng: random.Random, language: str, kind: str) -> str:
    pattern = rng.choice(QUESTIONS[language][kind])
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    if rng.random() < 0.25:
        text = rng.choice(OPENINGS[language]) + text
    style = rng.random()
    if style < 0.15:
        text = text.lower()
    elif style < 0.65:
        text = text[0].upper() + text[1:]
    return text + rng.choice(ENDINGS[language])


def _answer(language: str, kind: str, *, name: str, author: str) -> str:
    if language == "en":
        return {
            "who": f"I am {name}, an assistant made by {author}.",
            "name": f"My name is {name}.",
            "maker": f"I am {name}. I was made by {author}.",
        }[kind]
    # A space only where a Latin letter or digit would touch a Chinese character.
    before, maker = _space_before(name), _space_before(author) + author + _space_before(author[::-1])
    return {
        "who": f"我是{before}{name}，由{maker}开发的助手。",
        "name": f"我叫{before}{name}。",
        "maker": f"我是{before}{name}，我由{maker}开发。",
    }[kind]


def _space_before(text: str) -> str:
    return " " if text[0].isascii() and text[0].isalnum() else ""


def _copy(row: Row) -> Row:
    return {**row, "messages": [dict(message) for message in row["messages"]]}
