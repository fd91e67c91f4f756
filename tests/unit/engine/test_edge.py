"""Who is let in to the host's HTTP API, and how it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from tuneloom_common.principals import PrincipalEntry
from tuneloom_common.settings import load
from tuneloom_engine.settings import HostSettings

OpenHost = Callable[..., Any]
PATHS = (("GET", "/replicas"), ("GET", "/replicas/a--0123456789ab"), ("POST", "/replicas/a--0123456789ab"))


def principal(token: str, *scopes: str) -> PrincipalEntry:
    hashed = hashlib.sha256(token.encode()).hexdigest()
    return PrincipalEntry(id=f"has-{token}", token_sha256=hashed, scopes=frozenset(scopes))  # type: ignore[arg-type]


async def ask(client: Any, method: str, path: str, **request: Any) -> tuple[int, str]:
    async with client.request(method, path, **request) as response:
        return response.status, (await response.json()).get("reason", "")


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_token_with_the_scope_is_needed(open_host: OpenHost, method: str, path: str) -> None:
    client = await open_host(
        token=SecretStr("everything"),
        principals=(principal("gateway", "engines:use"), principal("reader", "models:read")),
    )
    for authorization, expected in {
        "": (401, "INVALID_TOKEN"),
        "Bearer nonsense": (401, "INVALID_TOKEN"),
        "Basic everything": (401, "INVALID_TOKEN"),
        "Bearer reader": (403, "MISSING_SCOPE"),
    }.items():
        assert await ask(client, method, path, headers={"Authorization": authorization}) == expected
    for token in ("everything", "gateway"):
        status, _ = await ask(client, method, path, headers={"Authorization": f"Bearer {token}"})
        assert status in (200, 404)


async def test_health_needs_no_token(open_host: OpenHost) -> None:
    client = await open_host(token=SecretStr("everything"))
    assert await ask(client, "GET", "/healthz") == (200, "")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8010", "127.0.0.1.evil.example", "[fe80::1]:80", "0.0.0.0"]
)
async def test_a_page_that_rebinds_its_name_is_refused(open_host: OpenHost, host: str) -> None:
    client = await open_host()
    for method, path in (*PATHS, ("GET", "/healthz")):
        assert await ask(client, method, path, headers={"Host": host}) == (403, "FOREIGN_HOST")


@pytest.mark.parametrize("host", ["localhost:8010", "LOCALHOST", "127.0.0.1", "[::1]:8010", "engine.internal:80"])
async def test_our_own_names_are_let_in(open_host: OpenHost, host: str) -> None:
    client = await open_host(allowed_hosts=("Engine.internal",))
    assert await ask(client, "GET", "/replicas", headers={"Host": host}) == (200, "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999", "Host": "localhost:8010"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_pages_of_other_sites_are_refused(open_host: OpenHost, headers: dict[str, str]) -> None:
    client = await open_host()
    for method, path in PATHS:
        assert await ask(client, method, path, headers=headers) == (403, "CROSS_SITE")


async def test_a_person_at_the_address_bar_is_let_in(open_host: OpenHost) -> None:
    client = await open_host()
    for headers in (
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Host": "localhost:1", "Origin": "http://localhost:1"},
    ):
        assert await ask(client, "GET", "/replicas", headers=headers) == (200, "")


async def test_bodies_are_refused(open_host: OpenHost) -> None:
    client = await open_host()
    for method, path in PATHS:
        assert await ask(client, method, path, data=b"x" * (1 << 20)) == (400, "BODY_NOT_TAKEN")


async def test_other_paths_and_methods_answer_in_json(open_host: OpenHost) -> None:
    client = await open_host()
    assert await ask(client, "GET", "/") == (404, "NOT_FOUND")
    assert await ask(client, "PUT", "/replicas") == (405, "METHOD_NOT_ALLOWED")


async def test_each_connection_has_one_request(open_host: OpenHost) -> None:
    client = await open_host()
    async with client.get("/healthz") as response:
        assert response.headers["Connection"] == "close"


def test_a_host_that_others_can_reach_needs_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNELOOM_ENGINE_OBJECTS_URL", "memory://")
    monkeypatch.setenv("TUNELOOM_ENGINE_HOST", "0.0.0.0")
    monkeypatch.setenv("TUNELOOM_ENGINE_TRUSTED_NETWORK", "true")
    with pytest.raises(SystemExit, match="2"):
        load(HostSettings)
    assert capsys.readouterr().err.startswith("TUNELOOM_ENGINE_PRINCIPALS: ")
    monkeypatch.setenv("TUNELOOM_ENGINE_TOKEN", "secret")
    assert load(HostSettings).host == "0.0.0.0"


async def test_by_a_name_of_its_own_it_is_known_where_tokens_count(open_host: OpenHost) -> None:
    client = await open_host(host="0.0.0.0", trusted_network=True, token=SecretStr("secret"))
    headers = {"Authorization": "Bearer secret", "Host": "engine:8010"}
    assert await ask(client, "GET", "/replicas", headers=headers) == (200, "")
