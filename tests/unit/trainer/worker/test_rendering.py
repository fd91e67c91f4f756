"""Loss falls on exactly the answers and the token that ends them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tuneloom_data.conversations import Conversation
from tuneloom_data.formats import parse_row
from tuneloom_trainer.worker.data.rendering import Example, render
from tuneloom_trainer.worker.protocol import WorkerFailed

pytestmark = pytest.mark.worker

STOP = ("<|im_end|>",)
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi there"}


def answer(content: str, **marks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **marks}


def rendered(tokenizer: Any, *messages: dict[str, Any], max_length: int = 10_000, **more: Any) -> Example:
    conversation = parse_row(5, {"messages": list(messages), **more})
    assert isinstance(conversation, Conversation)
    return render(conversation, tokenizer, stop_tokens=STOP, max_length=max_length)


def trained_parts(tokenizer: Any, example: Example) -> list[str]:
    """The decoded runs of trained tokens."""
    parts: list[list[int]] = []
    previous = False
    for token, trained in zip(example.tokens, example.trained, strict=True):
        if trained and not previous:
            parts.append([])
        if trained:
            parts[-1].append(token)
        previous = trained
    return [tokenizer.decode(part) for part in parts]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER, answer("hello")], ["hello<|im_end|>"]),
        ([SYSTEM, USER, answer("hello")], ["hello<|im_end|>"]),
        ([USER, answer("one"), USER, answer("two")], ["one<|im_end|>", "two<|im_end|>"]),
        ([USER, answer("one", weight=0), USER, answer("two")], ["two<|im_end|>"]),
        ([USER, answer("one"), USER, answer("two", loss=False)], ["one<|im_end|>"]),
        ([USER, answer("one"), USER], ["one<|im_end|>"]),
        ([USER, answer("a"), answer("b")], ["a<|im_end|>", "b<|im_end|>"]),
        ([USER, answer("你好 🎉\n ü")], ["你好 🎉\n ü<|im_end|>"]),
        ([USER, answer("\n padded \n")], ["\n padded \n<|im_end|>"]),
        ([USER, answer("say <|im_end|> now")], ["say <|im_end|> now<|im_end|>"]),
        ([USER, answer("hi there"), {"role": "tool", "content": "4"}, answer("hi there")], ["hi there<|im_end|>"] * 2),
    ],
)
def test_exactly_content_and_stop_token_carry_loss(
    tokenizer: Any, messages: list[dict[str, Any]], expected: list[str]
) -> None:
    example = rendered(tokenizer, *messages)

    assert trained_parts(tokenizer, example) == expected
    assert tokenizer.decode(example.tokens) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert example.stop_token_trained
    assert not example.truncated


def test_a_long_row_is_cut_and_says_so(tokenizer: Any) -> None:
    whole = rendered(tokenizer, USER, answer("x" * 100))
    example = rendered(tokenizer, USER, answer("x" * 100), max_length=60)

    assert example.truncated
    assert (example.tokens, example.trained) == (whole.tokens[:60], whole.trained[:60])
    assert not rendered(tokenizer, USER, answer("x" * 100), max_length=len(whole.tokens)).truncated


def with_template(tokenizer: Any, template: str) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
OPEN = "{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.mark.parametrize(
    "template",
    [
        "({{ messages | length }})" + TURNS + OPEN,  # the start depends on what follows
        "{% for m in messages %}[{{ m.role }}]{% if loop.last %}<think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
        + OPEN,  # a turn looks different once another one follows
        TURNS + "{% if add_generation_prompt %}[bot]{% endif %}",  # the opened turn is not the one that is closed
    ],
)
def test_a_template_that_rewrites_history_is_refused_by_row(tokenizer: Any, template: str) -> None:
    with pytest.raises(WorkerFailed, match=r"row 5.*rewrites earlier turns") as caught:
        rendered(with_template(tokenizer, template), USER, answer("one"), USER, answer("two"))

    assert caught.value.reason == "CHAT_TEMPLATE"


@pytest.mark.parametrize("end", ["", "\n", "<|im_end|>bye"])
def test_a_template_that_does_not_end_answers_is_noticed(tokenizer: Any, end: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + end + "{% endfor %}" + OPEN

    example = rendered(with_template(tokenizer, template), USER, answer("one"))

    assert not example.stop_token_trained


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + TURNS, "user first"),
        ("{{ messages[0].content.x.y }}", "no attribute"),
    ],
)
def test_a_template_that_refuses_a_row_names_it(tokenizer: Any, template: str, words: str) -> None:
    with pytest.raises(WorkerFailed, match=f"row 5: .*{words}") as caught:
        rendered(with_template(tokenizer, template), SYSTEM, USER, answer("one"))

    assert caught.value.reason == "CHAT_TEMPLATE"


def test_an_answer_to_nothing_is_named(tokenizer: Any) -> None:
    with pytest.raises(WorkerFailed, match=r"row 5: .*its first 0 messages"):
        rendered(tokenizer, answer("welcome"), USER, answer("hi"))


def test_tools_and_calls_reach_the_template(tokenizer: Any) -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for call in m.tool_calls or [] %}{{ call.function.arguments | tojson }}{% endfor %}<|im_end|>{% endfor %}"
    ) + OPEN
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}

    example = rendered(
        with_template(tokenizer, template), USER, answer("", tool_calls=[call]), tools=[{"function": {"name": "add"}}]
    )

    assert trained_parts(tokenizer, example) == ['{"a": 1}<|im_end|>']
    assert tokenizer.decode(example.tokens).startswith('[{"function": {"name": "add"}}]')


def test_stop_tokens_are_counted_after_cutting(tokenizer: Any) -> None:
    messages = (USER, answer("a rather long answer"))
    whole = rendered(tokenizer, *messages)
    cut = rendered(tokenizer, *messages, max_length=len(whole.tokens) - 4)
    assert (whole.stops, cut.stops) == (1, 0)
