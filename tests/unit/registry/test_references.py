from __future__ import annotations

import pytest

from tuneloom_common.errors import InvalidArgument
from tuneloom_registry.models import Reference

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("assistant", Reference("models/assistant", alias="default")),
        ("assistant@canary", Reference("models/assistant", alias="canary")),
        ("job-7k@100", Reference("models/job-7k", alias="100")),
        ("assistant:3", Reference("models/assistant", number=3)),
        (f"assistant@sha256:{DIGEST}", Reference("models/assistant", digest=DIGEST)),
        (f"qwen2.5--{DIGEST[:12]}", Reference("models/qwen2.5", digest=DIGEST[:12])),
        ("models/assistant/versions/3", Reference("models/assistant", number=3)),
        ("datasets/faq/versions/2", Reference("datasets/faq", number=2)),
        ("datasets/faq", Reference("datasets/faq")),
    ],
)
def test_every_form_has_one_meaning(text: str, meaning: Reference) -> None:
    assert Reference.parse(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "a b",
        "a\n",
        "模型",
        "../a",
        "a/b",
        "models/a",
        "models/a/aliases/b",
        "datasets/",
        "datasets/../x",
        "datasets/a/versions/0",
        "jobs/a/versions/1",
        "a@",
        "@b",
        "a@b@c",
        "a@B",
        "a:0",
        "a:01",
        "a:-1",
        "a:1:2",
        "a:x",
        "a:",
        ":1",
        "a:٣",
        "a:" + "9" * 10,
        "a:" + "9" * 5000,
        "a@sha256:",
        f"a@sha256:{DIGEST[:12]}",
        f"a@sha256:{DIGEST.upper()}",
        f"a@sha256:{DIGEST}0",
        f"a@md5:{DIGEST}",
        "a--",
        "a--0123456789a",
        "a--0123456789abc",
        "a--0123456789aB",
        "a--b--0123456789ab",
        "--0123456789ab",
        "a--0123456789ab@canary",
        "a:1@canary",
    ],
)
def test_anything_else_is_refused_with_the_field(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse(text)
    assert caught.value.field == "reference"
    assert len(caught.value.message) < 10_000
