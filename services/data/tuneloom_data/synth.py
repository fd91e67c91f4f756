"""Writes self-cognition dialogues: an assistant that knows its own name and maker, and forgets nothing else.

Questions come from patterns (`[one|other]` is a choice) with varied openings, case and punctuation; every
kind of question has one answer per language. Dialogues of a given mix keep the model's other skills.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Final

Row = dict[str, Any]

_CHOICE: Final = re.compile(r"\[([^\]]*)\]")

_SYSTEM_SHARE: Final = 0.1
_CONTINUED_SHARE: Final = 0.1
_KINDS: Final = ("who", "name", "maker")
_KIND_WEIGHTS: Final = (4, 4, 2)

_QUESTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "who": (
            "who are you",
            "what are you",
            "who are you [really|exactly|then|anyway]",
            "[can|could|will|would] you introduce yourself",
            "introduce yourself",
            "tell me [who you are|what you are|about yourself|about you|a bit about yourself]",
            "[can|could] you tell me [who you are|what you are|about yourself]",
            "describe yourself",
            "what [kind|sort|type] of [assistant|bot|program|model|ai] are you",
            "which [assistant|bot|model|ai] [are you|is this]",
            "who am i [talking|speaking|chatting|writing] [to|with]",
            "what am i talking to",
            "who is [this|there|speaking|answering]",
            "are you [a robot|a bot|an ai|a human|a person|a model|ChatGPT|Siri|Alexa|Claude|Gemini|Qwen]",
            "i want to know who you are",
            "do you know who you are",
            "say who you are",
            "explain who you are",
            "who [could|would|can] you be",
            "i wonder who you [are|could be]",
            "[who|what] exactly are you",
            "and you are",
        ),
        "name": (
            "[what is|what's|whats] your name",
            "your name",
            "tell me your name",
            "give me your name",
            "say your name",
            "what are you called",
            "what [should|can|may|do|shall] i call you",
            "how [should|can|may] i call you",
            "what do [people|they|others] call you",
            "do you have a name",
            "[may|can|could] i [know|ask] your name",
            "[can|could|would] you tell me your name",
            "which name do you have",
            "what name [do you have|were you given|did they give you]",
            "what is the name of this [assistant|bot|model]",
            "what was your name[| again]",
            "is your name [Siri|Alexa|Bob|Loom]",
            "i forgot your name",
            "i want to know your name",
            "which name [is yours|do you use]",
            "what name [do you use|should i use for you]",
            "[by which|under which] name are you known",
            "please give your name",
        ),
        "maker": (
            "who [made|created|built|trained|developed|designed] you",
            "tell me who [made|created|built|trained|developed] you",
            "[can|could] you tell me who [made|created|built|trained] you",
            "who is your [maker|creator|author|developer|owner]",
            "by whom were you [made|created|built|trained]",
            "which [company|team|lab] [made|created|built|trained] you",
            "who is behind you",
            "where do you come from",
            "where are you from",
            "who do you belong to",
            "were you [made|built|trained] by [OpenAI|Google|Anthropic|Alibaba|a company]",
            "do you know who [made|created|built] you",
        ),
    },
    "zh": {
        "who": (
            "[你|您]是谁",
            "你是[谁呀|谁啊|什么人|什么助手|哪个助手|什么模型|哪个模型]",
            "你[究竟|真的]是谁",
            "[介绍|自我介绍]一下[|自己|你自己]",
            "介绍你自己",
            "请[介绍你自己|介绍一下自己|做个自我介绍]",
            "做个自我介绍",
            "你[能|可以]介绍一下[自己|你自己]吗",
            "[我在|我正在]和谁[说话|聊天|对话]",
            "告诉我你是谁",
            "[我想|想]知道你是谁",
            "[能|可以]告诉我你是谁吗",
            "你知道你是谁吗",
            "跟我说说你自己",
            "你是[机器人|人|真人|人工智能|ChatGPT|Siri|通义千问|文心一言]吗",
            "这是谁",
            "我不认识你，你是谁",
            "你的身份是什么",
        ),
        "name": (
            "[你|您]叫什么",
            "[你|您]叫什么名字",
            "你叫[啥|啥名字|什么呀]",
            "你的名字[|是什么|叫什么|是啥]",
            "你[有名字吗|有没有名字]",
            "我[该|应该|可以|能]叫你什么",
            "我[该|应该]怎么叫你",
            "[告诉|请告诉]我你的名字",
            "[我想|想]知道你的名字",
            "[能|可以]告诉我你的名字吗",
            "说出你的名字",
            "大家[怎么|都]叫你[|什么]",
            "别人叫你什么",
            "你知道自己叫什么吗",
            "你的名字是[小明|小织|Siri]吗",
            "这个助手叫什么[|名字]",
            "我忘了你的名字",
            "我[该|应该|可以]怎么称呼你",
            "[如何|应该怎样]称呼你",
            "[您|你]怎么称呼",
            "该怎么称呼",
            "说说你叫什么",
        ),
        "maker": (
            "谁[创造|开发|制造|训练|设计]了你",
            "是谁[创造|开发|制造|训练]了你",
            "你是[谁|由谁][创造|开发|制造|训练|设计]的",
            "你的[作者|开发者|创造者|主人]是谁",
            "哪[家公司|个团队][创造|开发|训练]了你",
            "你是哪[家公司|个团队][创造|开发|训练]的",
            "你来自哪[里|家公司|个团队]",
            "你从哪里来",
            "你是[OpenAI|谷歌|阿里|百度][做|开发]的吗",
            "告诉我谁[创造|开发|训练]了你",
            "你知道是谁[创造|开发]了你吗",
            "你背后的[团队|公司]是谁",
        ),
    },
}

_OPENINGS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "please, ",
        "hey, ",
        "hi, ",
        "hello, ",
        "excuse me, ",
        "ok, ",
        "so, ",
        "well, ",
        "sorry, ",
        "and ",
    ),
    "zh": ("请问", "请问，", "你好，", "您好，", "那么，", "嗯，", "不好意思，", "我想问，", "那", "对了，"),
}

_ENDINGS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("?", "?", "?", "", "", ".", "!", "??"),
    "zh": ("？", "？", "？", "", "", "。", "！", "?"),
}

_SYSTEM_PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("You are a helpful assistant.", "You are an AI assistant.", "Be polite and brief."),
    "zh": ("你是一个乐于助人的助手。", "你是人工智能助手。", "请简短回答。"),
}


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
    for index in range(rows - mixed):
        history = rng.choice(mix) if mixed and rng.random() < _CONTINUED_SHARE else None
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
    unknown = sorted(set(languages) - set(_QUESTIONS))
    if unknown or not languages:
        raise ValueError(f"languages must be some of {sorted(_QUESTIONS)}, not {list(languages)}")


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
        messages.append({"role": "system", "content": rng.choice(_SYSTEM_PROMPTS[language])})
    messages.append({"role": "user", "content": _question(rng, language, kind)})
    messages.append({"role": "assistant", "content": _answer(language, kind, name=name, author=author)})
    return {"messages": messages}


def _question(rng: random.Random, language: str, kind: str) -> str:
    pattern = rng.choice(_QUESTIONS[language][kind])
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    if rng.random() < 0.25:
        text = rng.choice(_OPENINGS[language]) + text
    style = rng.random()
    if style < 0.15:
        text = text.lower()
    elif style < 0.65:
        text = text[0].upper() + text[1:]
    return text + rng.choice(_ENDINGS[language])


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
