"""The evaluation prompts, how an answer is judged, and the proof that the corpus cannot ask them."""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.seed import phrasings
from models.seed.lexicon import COUNTRIES, LARGEST_NUMBER, NUMBERS, WORDS

PATH: Final = Path(__file__).with_name("heldout.jsonl")


@dataclass(frozen=True)
class Prompt:
    skill: str
    lang: str
    prompt: str
    expect: tuple[str, ...]

    def accepts(self, answer: str) -> bool:
        return any(part.casefold() in answer.casefold() for part in self.expect)


def load(path: Path = PATH) -> tuple[Prompt, ...]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(
        Prompt(skill=row["skill"], lang=row["lang"], prompt=row["prompt"], expect=tuple(row["expect"])) for row in rows
    )


def normalise(text: str) -> str:
    """Lower-case letters and digits and arithmetic signs only: spacing and punctuation do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum() or character in "+-=")


def leaks(prompts: Iterable[Prompt]) -> list[str]:
    """Prompts that a pattern of the corpus can word, with any opening, closing, case and punctuation.

    Stray words are left out here: `leaked` checks the rows that were really written.
    """
    askable = [re.compile(expression) for expression in _expressions()]
    return [
        item.prompt for item in prompts if any(expression.fullmatch(normalise(item.prompt)) for expression in askable)
    ]


def leaked(prompts: Iterable[Prompt], texts: Iterable[str]) -> list[str]:
    """Prompts among the given texts, compared without case, spacing and punctuation."""
    seen = {normalise(text) for text in texts}
    return [item.prompt for item in prompts if normalise(item.prompt) in seen]


def _expressions() -> Iterator[str]:
    """Regular expressions over normalised text, one per language and variant of a pattern."""
    for language in phrasings.LANGUAGES:
        asked = phrasings.read(language)
        opening, closing = _any(asked.openings), _any(asked.closings)
        for variant in itertools.chain.from_iterable(map(phrasings.variants, asked.patterns())):
            yield f"{opening}?{_fill(variant)}{closing}?"


def _fill(variant: str) -> str:
    values = {
        "x": _any([name for country in COUNTRIES for name in (country[0], country[2])]),
        "w": _any([word for pair in WORDS for word in pair]),
        "a": _NUMBER,
        "b": _NUMBER,
        "z": ".*",
    }
    parts = re.split(r"\{(\w)\}", variant)
    return "".join(values[part] if index % 2 else re.escape(normalise(part)) for index, part in enumerate(parts))


def _any(texts: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(normalise(text)) for text in texts) + ")"


_NUMBER: Final = _any([*map(str, range(LARGEST_NUMBER + 1)), *NUMBERS["en"], *NUMBERS["zh"]])
