"""How the seed corpus asks: patterns per question kind, one file per language.

A pattern is plain text with `[one|other]` choices and `{slot}` fields. A question is
opening + pattern + closing + ending, so a few hundred patterns give millions of questions.
Held-out prompts use patterns that are not here; `heldout.leaks` proves it.
"""

import functools
import itertools
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Language = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

_CHOICE: Final = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Phrasings:
    """One language. The mappings go from question kind to patterns; repeated endings are likelier ones."""

    openings: list[str]
    fillers: list[str]
    closings: list[str]
    endings: list[str]
    capital: list[str]
    echo: list[str]
    greeting: dict[str, list[str]]
    identity: dict[str, list[str]]
    sum: dict[str, list[str]]
    translation: dict[str, list[str]]

    def patterns(self) -> Iterator[str]:
        for kinds in (self.greeting, self.identity, self.sum, self.translation):
            yield from itertools.chain.from_iterable(kinds.values())
        yield from self.capital
        yield from self.echo


@functools.cache
def read(language: Language) -> Phrasings:
    path = Path(__file__).with_name(f"phrasings_{language}.toml")
    return Phrasings(**tomllib.loads(path.read_text(encoding="utf-8")))


def pick(pattern: str, rng: random.Random) -> str:
    """One variant of the pattern; slots stay."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)


def variants(pattern: str) -> Iterator[str]:
    """Every variant of the pattern; slots stay."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    for combination in itertools.product(*choices):
        yield "".join(combination)
