from __future__ import annotations

import pytest

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.ids import check_id, check_number, check_sha256, new_id


@pytest.mark.parametrize("good", ["a", "7", "qwen2.5-0.5b", "job-4k2m9x7q", "a_b", "a" * 63])
def test_well_formed_ids_pass_unchanged(good: str) -> None:
    assert check_id(good, field="model_id") == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a" * 64,
        ".",
        "..",
        "../etc/passwd",
        "a/b",
        "a\\b",
        "a..b",
        "a--b",
        "-a",
        "a-",
        ".a",
        "a.",
        "Aa",
        "a b",
        "a\n",
        "\na",
        "a\0",
        "模型",
        "а",  # Cyrillic
        "a\u0301",
        "ａ",  # full width
        "²",
        "a%2e",
        "a@b",
        "a:b",
    ],
)
def test_ids_that_could_leave_a_path_or_a_name_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_id(bad, field="model_id")
    assert caught.value.field == "model_id"


def test_new_ids_are_well_formed_and_differ() -> None:
    made = {new_id("job") for _ in range(200)}
    assert len(made) == 200
    for one in made:
        assert check_id(one, field="id").startswith("job-")


@pytest.mark.parametrize("bad", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "sha256:" + "0" * 57])
def test_hashes_have_one_spelling(bad: str) -> None:
    assert check_sha256("0123456789abcdef" * 4, field="sha256")
    with pytest.raises(InvalidArgument):
        check_sha256(bad, field="sha256")


def test_the_largest_number_fits_a_database_integer() -> None:
    assert check_number("999999999", field="n") < 2**31
