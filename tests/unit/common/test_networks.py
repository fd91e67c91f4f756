"""Which targets are elsewhere, where plain text would be read by others."""

from __future__ import annotations

import pytest

from tuneloom_common.addresses import places
from tuneloom_common.networks import http_url, leaves_machine, would_be_read


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("registry:8021", [("registry", 8021)]),
        ("registry", [("registry", 443)]),
        ("[::1]:8021", [("::1", 8021)]),
        ("::1", [("::1", 443)]),
        ("dns:///registry", [("registry", 443)]),
        ("dns:///registry.internal:8021", [("registry.internal", 8021)]),
        ("dns://10.0.0.53/registry:8021", [("registry", 8021)]),
        ("dns:registry:8021", [("registry", 8021)]),
        ("dns:8021", [("dns", 8021)]),
        ("ipv4:10.0.0.1:8021,10.0.0.2:8022", [("10.0.0.1", 8021), ("10.0.0.2", 8022)]),
        ("ipv6:[::1]:8021,[fe80::1]:1", [("::1", 8021), ("fe80::1", 1)]),
        ("unix:///run/registry.sock", []),
    ],
)
def test_places_of_a_target(target: str, expected: list[tuple[str, int]]) -> None:
    assert places(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "localhost:1",
        "127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "unix:/s",
        "dns:///LocalHost:1",
        "http://[::1]:8/v1",
        "https://localhost",
        "HTTP://localhost:1",
    ],
)
def test_what_stays_on_this_machine(target: str) -> None:
    assert not leaves_machine(target)


@pytest.mark.parametrize(
    "target",
    [
        "prod:8021",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "dns:///registry",
        "http://prod/v1",
        "HTTP://prod",
        "0.0.0.0:1",
        "dns:///a.localhost:1",
        "http://evil.localhost/",
    ],
)
def test_what_leaves_this_machine(target: str) -> None:
    assert leaves_machine(target)


def test_a_password_is_not_shown() -> None:
    told = would_be_read("http://me:secret@prod:8000/v1", mend="use https://", prefix="TUNELOOM_CLI_")
    assert told.startswith("http://prod:8000 is another machine")
    assert "secret" not in told


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://prod:8000", "http://prod:8000"),
        ("HTTP://prod:8000/v1", "http://prod:8000/v1"),
        (" Https://Prod ", "https://Prod"),
        ("http://[::1]:8", "http://[::1]:8"),
    ],
)
def test_a_url_in_one_spelling(text: str, url: str) -> None:
    assert http_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "me:s3cret@prod:8000",
        "prod:8000",
        "//prod",
        "http:prod",
        "http://",
        "ftp://prod",
        "http://s3cret:port/",
        "http://[::1",
        "http://pr\tod",
        "http://localhost\\@s3cret",
    ],
)
def test_what_is_no_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="is not an http") as caught:
        http_url(text)
    assert "s3cret" not in str(caught.value)
