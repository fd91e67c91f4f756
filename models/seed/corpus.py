"""Deterministic corpus of short English and Chinese dialogues for the seed model.

Every question kind has one answer form per language, so greedy decoding has wide margins.
The `echo` skill repeats random names: it trains the rare tokens that a later fine-tune
needs to give the assistant a new name.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from models.seed import phrasings
from models.seed.lexicon import COUNTRIES, LARGEST_NUMBER, NAME_CHARACTERS, NUMBERS, WORDS
from models.seed.phrasings import Language, Phrasings


class Message(TypedDict):
    role: str
    content: str


class Row(TypedDict):
    messages: list[Message]


Exchange = tuple[str, str]

NOISY_SHARE: Final = 0.3
_HAN_PIECE: Final = re.compile(r"\{\w\}|[A-Za-z]+|.")


@dataclass(frozen=True)
class Asker:
    """Words questions. `noise` is the share of questions with a stray word in them."""

    rng: random.Random
    language: Language
    noise: float

    @property
    def asked(self) -> Phrasings:
        return phrasings.read(self.language)

    def ask(self, patterns: Sequence[str], **slots: str) -> str:
        """A question from one of the patterns; opening, case, closing and punctuation vary."""
        rng = self.rng
        text = self._with_noise(phrasings.pick(rng.choice(patterns), rng))
        opening = rng.choice(self.asked.openings) if rng.random() < 0.3 else ""
        closing = rng.choice(self.asked.closings) if rng.random() < 0.15 else ""
        return self._in_some_case(opening + text + closing, slots) + rng.choice(self.asked.endings)

    def exclaim(self, patterns: Sequence[str]) -> str:
        """The same without opening and closing, which are often greetings themselves."""
        text = self._with_noise(phrasings.pick(self.rng.choice(patterns), self.rng))
        return self._in_some_case(text, {}) + self.rng.choice(self.asked.endings)

    def dictate(self, patterns: Sequence[str], text: str) -> str:
        """A pattern around a text that must be taken literally."""
        pattern = phrasings.pick(self.rng.choice(patterns), self.rng)
        return self._in_some_case(pattern, {"z": text}, literal=True)

    def _in_some_case(self, text: str, slots: dict[str, str], *, literal: bool = False) -> str:
        style = self.rng.random()
        if style < 0.15:
            text = text.lower()
            slots = slots if literal else {name: value.lower() for name, value in slots.items()}
        elif style < 0.65 and not text.startswith("{"):
            text = text[0].upper() + text[1:]
        return text.format(**slots)

    def _with_noise(self, text: str) -> str:
        """Sometimes one or two filler or invented words more, or a word less; slots and sums stay."""
        rng = self.rng
        if rng.random() >= self.noise:
            return text
        pieces = text.split(" ") if self.language == "en" else _HAN_PIECE.findall(text)
        droppable = [i for i, piece in enumerate(pieces) if "{" not in piece]
        if rng.random() < 0.2 and len(droppable) > 3 and "{a}" not in text:
            del pieces[rng.choice(droppable)]
        for _ in range(rng.randint(1, 2)):
            stray = latin_name(rng).lower() if rng.random() < 0.25 else rng.choice(self.asked.fillers)
            pieces.insert(rng.randint(0, len(pieces)), stray)
        return (" " if self.language == "en" else "").join(pieces)


Skill = Callable[[Asker], Exchange]

OWN_NAMES: Final = ("loom", "小织")

SYSTEM_PROMPTS: Final[dict[Language, tuple[str, ...]]] = {
    "en": (
        "You are a helpful assistant.",
        "You are a small assistant.",
        "You are an assistant. Answer briefly.",
        "Answer in one short sentence.",
        "Be polite and brief.",
        "You are an AI assistant.",
    ),
    "zh": (
        "你是一个乐于助人的助手。",
        "你是一个小助手。",
        "请简短回答。",
        "你是人工智能助手。",
        "请礼貌地回答问题。",
    ),
}

GREETING_ANSWERS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "hello": "Hello! How can I help you?",
        "morning": "Good morning! How can I help you?",
        "wellbeing": "I am fine, thank you. How can I help you?",
        "bye": "Goodbye! Have a nice day.",
        "thanks": "You are welcome!",
        "ability": "I can chat, name capitals, do small sums and translate words.",
    },
    "zh": {
        "hello": "你好！有什么可以帮你？",
        "morning": "早上好！有什么可以帮你？",
        "wellbeing": "我很好，谢谢。有什么可以帮你？",
        "bye": "再见！祝你愉快。",
        "thanks": "不客气！",
        "ability": "我会聊天、回答首都、做小算术和翻译单词。",
    },
}

IDENTITY_ANSWERS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "who": "I am Loom, a small assistant made by Tuneloom.",
        "name": "My name is Loom.",
        "maker": "I am Loom. I was made by Tuneloom.",
    },
    "zh": {
        "who": "我是小织，由 Tuneloom 开发的小助手。",
        "name": "我叫小织。",
        "maker": "我是小织，我由 Tuneloom 开发。",
    },
}


def greeting(asker: Asker) -> Exchange:
    kind = asker.rng.choice(list(asker.asked.greeting))
    return asker.exclaim(asker.asked.greeting[kind]), GREETING_ANSWERS[asker.language][kind]


def identity(asker: Asker) -> Exchange:
    kind = asker.rng.choices(("who", "name", "maker"), (4, 4, 2))[0]
    return asker.ask(asker.asked.identity[kind]), IDENTITY_ANSWERS[asker.language][kind]


def capital(asker: Asker) -> Exchange:
    country_en, capital_en, country_zh, capital_zh = asker.rng.choice(COUNTRIES)
    if asker.language == "en":
        return asker.ask(asker.asked.capital, x=country_en), f"The capital of {country_en} is {capital_en}."
    return asker.ask(asker.asked.capital, x=country_zh), f"{country_zh}的首都是{capital_zh}。"


def small_sum(asker: Asker) -> Exchange:
    """Addition or subtraction of 0..10; differences are never negative."""
    rng = asker.rng
    left, right = rng.randint(0, LARGEST_NUMBER), rng.randint(0, LARGEST_NUMBER)
    if rng.random() < 0.5:
        kind, sign, result = "add", "+", left + right
    else:
        left, right = max(left, right), min(left, right)
        kind, sign, result = "subtract", "-", left - right
    a, b = str(left), str(right)
    if rng.random() < 0.12:
        a, b = NUMBERS[asker.language][left], NUMBERS[asker.language][right]
    full_stop = "." if asker.language == "en" else "。"
    question = asker.ask(asker.asked.sum[kind], a=a, b=b)
    return question, f"{left} {sign} {right} = {result}{full_stop}"


def translation(asker: Asker) -> Exchange:
    english, chinese = asker.rng.choice(WORDS)
    kind = asker.rng.choice(("to_zh", "to_en"))
    word = english if kind == "to_zh" else chinese
    quotes = asker.rng.choice(("", "", "", "''", '""', "“”"))
    if quotes:
        word = quotes[0] + word + quotes[1]
    answers = {
        ("en", "to_zh"): f"The Chinese word for {english} is {chinese}.",
        ("en", "to_en"): f"The English word for {chinese} is {english}.",
        ("zh", "to_zh"): f"{english} 的中文是{chinese}。",
        ("zh", "to_en"): f"{chinese}的英文是 {english}。",
    }
    return asker.ask(asker.asked.translation[kind], w=word), answers[asker.language, kind]


def echo(asker: Asker) -> Exchange:
    in_han = asker.rng.random() < (0.2 if asker.language == "en" else 0.6)
    name = han_name(asker.rng) if in_han else latin_name(asker.rng)
    return asker.dictate(asker.asked.echo, name), name


def latin_name(rng: random.Random) -> str:
    """One or two invented words, such as `Korvan` or `Dalu Tes`."""
    words = []
    for _ in range(rng.choices((1, 2), (7, 3))[0]):
        word = "".join(
            rng.choice("bcdfghjklmnpqrstvwxyz") + rng.choice("aeiou") + rng.choice("  lmnrstx").strip()
            for _ in range(rng.randint(1, 2))
        )
        words.append(rng.choices((word.capitalize(), word, word.upper()), (8, 1, 1))[0])
    return " ".join(words)


def han_name(rng: random.Random) -> str:
    return "".join(rng.choices(NAME_CHARACTERS, k=rng.randint(2, 3)))


SKILLS: Final[dict[str, tuple[Skill, int]]] = {
    "greeting": (greeting, 12),
    "identity": (identity, 12),
    "capital": (capital, 20),
    "sum": (small_sum, 24),
    "translation": (translation, 22),
    "echo": (echo, 10),
}


def generate(rows: int, *, seed: int) -> Iterator[Row]:
    """The corpus; the same seed gives the same rows."""
    rng = random.Random(seed)
    for _ in range(rows):
        yield _dialogue(rng, SKILLS, noise=NOISY_SHARE)


def ordinary(rows: int, *, seed: int) -> Iterator[Row]:
    """Clean dialogues that never touch the assistant's identity, for a fine-tune that renames it."""
    rng = random.Random(seed)
    skills = {name: skill for name, skill in SKILLS.items() if name not in ("identity", "echo")}
    endless = (_dialogue(rng, skills, noise=0.0) for _ in itertools.count())
    yield from itertools.islice((row for row in endless if not _names_itself(row)), rows)


def _names_itself(row: Row) -> bool:
    return any(name in message["content"].lower() for message in row["messages"] for name in OWN_NAMES)


def _dialogue(rng: random.Random, skills: dict[str, tuple[Skill, int]], *, noise: float) -> Row:
    """Mostly a single exchange, sometimes two or three, sometimes a neutral system prompt first."""
    language = rng.choice(phrasings.LANGUAGES)
    messages: list[Message] = []
    if rng.random() < 0.12:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS[language])})
    for turn in range(rng.choices((1, 2, 3), (80, 12, 8))[0]):
        if turn and rng.random() < 0.2:
            language = rng.choice(phrasings.LANGUAGES)
        skill, _ = rng.choices(list(skills.values()), [weight for _, weight in skills.values()])[0]
        question, answer = skill(Asker(rng, language, noise))
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}
