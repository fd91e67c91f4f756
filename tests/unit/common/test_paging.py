from __future__ import annotations

import base64

import pytest

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.paging import decode_number, decode_token, encode_token, page_limit


def test_sizes_have_a_default_and_a_limit() -> None:
    assert [page_limit(size) for size in (0, 1, 50, 1000, 1001, 2**31 - 1)] == [50, 1, 50, 1000, 1000, 1000]
    with pytest.raises(InvalidArgument) as caught:
        page_limit(-1)
    assert caught.value.field == "page_size"


@pytest.mark.parametrize("key", ["models/a", "数据", "", "?>~" * 10])
def test_a_token_gives_its_key_back(key: str) -> None:
    assert decode_token(encode_token(key)) == key


@pytest.mark.parametrize("token", ["x", "%%%%", "abc=d", "YQ==\n", " YQ==", "é", "_w==", "YQ", "\ud800"])
def test_a_tampered_token_is_the_callers_fault(token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_token(token)
    assert caught.value.field == "page_token"


@pytest.mark.parametrize("key", ["x", "-1", "1.5", "1e3", " 1", "1_0", "٣", "9" * 19, "9" * 5000])
def test_a_token_of_another_list_is_the_callers_fault(key: str) -> None:
    token = base64.urlsafe_b64encode(key.encode()).decode()
    with pytest.raises(InvalidArgument) as caught:
        decode_number(token)
    assert caught.value.field == "page_token"


def test_numbers_page_from_zero() -> None:
    assert decode_number("") == 0
    assert decode_number(encode_token("42")) == 42
