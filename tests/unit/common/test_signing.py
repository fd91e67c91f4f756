"""AWS's own examples of Signature Version 4 (Amazon S3 API reference, "Examples: Signature Calculations")."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tuneloom_common.objects.signing import EMPTY_SHA256, Credentials, Signer

CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
SIGNER = Signer(CREDENTIALS, "us-east-1", datetime(2013, 5, 24, tzinfo=UTC))
HOST = "https://examplebucket.s3.amazonaws.com"
PUT_SHA256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "signature"),
    [
        (
            "GET", "/test.txt", EMPTY_SHA256, {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test%24file.text", PUT_SHA256,
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/?lifecycle=", EMPTY_SHA256, {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET", "/?max-keys=2&prefix=J", EMPTY_SHA256, {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_signed_headers(method: str, path: str, content: str, headers: dict[str, str], signature: str) -> None:
    signed = SIGNER.headers(method, HOST + path, content=content, headers=headers)
    assert signed["authorization"].endswith(f"Signature={signature}")


def test_a_url_that_carries_its_permission() -> None:
    url = SIGNER.url("GET", f"{HOST}/test.txt", seconds=86400)
    assert url.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_a_secret_is_in_no_repr() -> None:
    assert "wJalr" not in repr(SIGNER)
    assert "sesame" not in repr(Credentials("AK", "secret", "sesame"))


def test_the_token_of_a_temporary_key_is_signed() -> None:
    signer = Signer(Credentials("AK", "secret", "sesame"), "us-east-1", SIGNER.now)
    assert signer.headers("GET", HOST)["x-amz-security-token"] == "sesame"
    assert "X-Amz-Security-Token=sesame" in signer.url("GET", HOST, seconds=1)
