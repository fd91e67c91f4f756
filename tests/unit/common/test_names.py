from __future__ import annotations

import pytest

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.names import AliasName, EngineName, Reference, VersionName, parse_name

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("collection", ["models", "datasets"])
def test_a_version_name_round_trips(collection: str) -> None:
    name = VersionName.parse(f"{collection}/qwen2.5/versions/12")
    assert (name.collection, name.id, name.number) == (collection, "qwen2.5", 12)
    assert str(name) == f"{collection}/qwen2.5/versions/12"
    assert name.parent == f"{collection}/qwen2.5"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "models/a",
        "models/a/versions",
        "models/a/versions/",
        "models/a/versions/1/",
        "/models/a/versions/1",
        "jobs/a/versions/1",
        "models/../versions/1",
        "models//versions/1",
        "models/a/versions/0",
        "models/a/versions/01",
        "models/a/versions/-1",
        "models/a/versions/+1",
        "models/a/versions/1_0",
        "models/a/versions/1.0",
        "models/a/versions/ 1",
        "models/a/versions/1\n",
        "models/a/versions/١",  # an Arabic digit
        "models/a/versions/²",
        "models/a/versions/" + "9" * 10,
        "models/a/versions/" + "9" * 5000,
    ],
)
def test_a_version_has_exactly_one_name(bad: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        VersionName.parse(bad, field="source")
    assert caught.value.field == "source"


@pytest.mark.parametrize("bad", ["models/", "models", "datasets/a", "models/a/b", "models/..", "models//a", ""])
def test_a_name_belongs_to_its_collection(bad: str) -> None:
    assert parse_name("models/a", "models") == "a"
    with pytest.raises(InvalidArgument):
        parse_name(bad, "models")


def test_an_alias_name_round_trips() -> None:
    name = AliasName.parse("models/assistant/aliases/default")
    assert name == AliasName("models/assistant", "default")
    assert str(name) == "models/assistant/aliases/default"


@pytest.mark.parametrize("bad", ["", "models/a", "datasets/a/aliases/b", "models/a/aliases/", "models/A/aliases/b"])
def test_an_alias_name_has_one_form(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        AliasName.parse(bad)


def test_an_engine_name_is_a_safe_file_name_that_splits_one_way() -> None:
    name = EngineName.of("qwen2.5-7b", DIGEST)
    assert str(name) == "qwen2.5-7b--0123456789ab"
    assert EngineName.parse(str(name)) == name == EngineName("qwen2.5-7b", "0123456789ab")


@pytest.mark.parametrize(
    "bad",
    [
        "../x--0123456789ab",
        "x--0123456789a",
        "x--0123456789ab\n",
        "x-0123456789ab",
        "X--0123456789ab",
        "a--b--" + "0" * 12,
    ],
)
def test_nothing_else_is_an_engine_name(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="model: "):
        EngineName.parse(bad, field="model")


@pytest.mark.parametrize(
    ("text", "immutable"),
    [
        ("assistant", False),
        ("assistant@canary", False),
        ("datasets/faq", False),
        ("assistant:3", True),
        ("models/assistant/versions/3", True),
        (f"assistant@sha256:{DIGEST}", True),
        (str(EngineName.of("assistant", DIGEST)), True),
    ],
)
def test_only_numbers_and_digests_mean_the_same_for_ever(text: str, immutable: bool) -> None:
    assert Reference.parse(text).immutable is immutable


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
