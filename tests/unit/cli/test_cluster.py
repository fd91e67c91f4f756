"""The command as a process of its own, against services elsewhere that speak TLS and ask for certificates."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from tests.authority import Authority, Files
from tests.fakes import FakeRegistry, event, serve_registry
from tuneloom_cli.cluster import ClusterSettings
from tuneloom_common.tls import ServerTls

TOKEN = "cluster-token"
Environment = dict[str, str]


class FakeGateway:
    """Says hello to whoever has the key."""

    async def model(self, request: web.Request) -> web.Response:
        if request.headers["authorization"] != "Bearer cluster-key":
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"version": "models/seed/versions/1", "kind": "base"})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(event({"choices": [{"delta": {"content": "hello"}}]}) + b"data: [DONE]\n\n")
        return response


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def client(authority: Authority) -> Files:
    return authority.issue("client")


@pytest.fixture
async def cluster(authority: Authority, client: Files, tmp_path: Path) -> AsyncIterator[Environment]:
    registry = FakeRegistry()
    registry.add("seed", "base")
    gateway = FakeGateway()
    app = web.Application()
    app.router.add_get("/v1/models/{name}", gateway.model)
    app.router.add_post("/v1/chat/completions", gateway.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = ServerTls(authority.issue("services").pair, authority.path)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context())
    await site.start()
    async with serve_registry(registry, token=TOKEN, tls=tls) as address:
        yield {
            "TUNELOOM_HOME": str(tmp_path / "no home"),
            "TUNELOOM_CLI_REGISTRY_ADDRESS": address,
            "TUNELOOM_CLI_TRAINER_ADDRESS": address,
            "TUNELOOM_CLI_GATEWAY_URL": f"https://localhost:{runner.addresses[0][1]}/v1",
            "TUNELOOM_CLI_TOKEN": TOKEN,
            "TUNELOOM_CLI_API_KEY": "cluster-key",
            "TUNELOOM_CLI_CA": str(authority.path),
            "TUNELOOM_CLI_CERTIFICATE": str(client.certificate),
            "TUNELOOM_CLI_KEY": str(client.key),
        }
    await runner.cleanup()


async def say(environment: Environment, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tuneloom_cli", *arguments, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


async def test_a_cluster_is_talked_to_over_tls(cluster: Environment) -> None:
    status, out, errors = await say(cluster, "models", "list")
    assert (status, errors) == (0, "")
    assert "seed" in out
    status, out, errors = await say(cluster, "chat", "seed", "--message", "hi")
    assert (status, errors) == (0, "")
    assert "hello" in out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"CERTIFICATE": "", "KEY": ""}, "TUNELOOM_CLI_CERTIFICATE and TUNELOOM_CLI_KEY"),
        ({"CERTIFICATE": "", "KEY": "", "CA": ""}, "TUNELOOM_CLI_CA"),
        ({"REGISTRY_SERVER_NAME": "elsewhere.example"}, "certificate is not for the name elsewhere.example"),
        ({"KEY": ""}, "TUNELOOM_CLI_KEY"),
        ({"KEY": "/no/such.key"}, "/no/such.key"),
        ({"TRAINER_ADDRESS": ""}, "TUNELOOM_CLI_TRAINER_ADDRESS"),
        (
            {"CERTIFICATE": "", "KEY": "", "CA": "", "REGISTRY_ADDRESS": "prod:8021"},
            "prod:8021 is another machine, and tokens and data would be sent to it in plain text; set TUNELOOM_CLI_CA",
        ),
        ({"GATEWAY_URL": "http://me:secret@prod/v1"}, "TUNELOOM_CLI_GATEWAY_URL: http://prod is another machine"),
        ({"ENGINE_HOST_URL": "http://prod:8010"}, "TUNELOOM_CLI_TRUSTED_NETWORK=true"),
    ],
)
async def test_what_is_wrong_is_one_sentence_with_the_next_step(
    cluster: Environment, change: Environment, told: str
) -> None:
    changed = {f"TUNELOOM_CLI_{name}": value for name, value in change.items()}
    environment = {name: value for name, value in (cluster | changed).items() if value}
    status, _, errors = await say(environment, "models", "list")
    assert status in (1, 2)
    assert told in " ".join(errors.split())
    assert "ssl_transport_security" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"API_KEY": "another"}, "the gateway does not know our key; set TUNELOOM_CLI_API_KEY to one it knows"),
        ({"GATEWAY_URL": "https://127.0.0.1:9"}, "see whether it runs where TUNELOOM_CLI_GATEWAY_URL says"),
    ],
)
async def test_what_a_chat_cannot_do_is_told_for_a_cluster(
    cluster: Environment, change: Environment, told: str
) -> None:
    changed = {f"TUNELOOM_CLI_{name}": value for name, value in change.items()}
    status, _, errors = await say(cluster | changed, "chat", "seed", "--message", "hi")
    assert (status, told in errors, "tuneloom up" in errors, "this home" in errors) == (1, True, False, False)


async def test_a_registry_that_is_away_is_looked_for_by_its_setting(cluster: Environment) -> None:
    away = cluster | {"TUNELOOM_CLI_REGISTRY_ADDRESS": "127.0.0.1:9"}
    _, _, errors = await say(away, "models", "list")
    assert errors.startswith("error: the registry does not answer")
    assert "TUNELOOM_CLI_REGISTRY_ADDRESS" in errors


async def test_the_setting_of_another_name_exists(cluster: Environment, authority: Authority) -> None:
    _, _, errors = await say(cluster | {"TUNELOOM_CLI_REGISTRY_SERVER_NAME": "a.example"}, "models", "list")
    assert "set TUNELOOM_CLI_REGISTRY_SERVER_NAME to one it is for" in " ".join(errors.split())
    authority.issue("services", hosts=["registry.example"])
    named = {"TUNELOOM_CLI_REGISTRY_SERVER_NAME": "registry.example"}
    assert (await say(cluster | named, "models", "list"))[0] == 0
    _, _, errors = await say(cluster | named, "chat", "seed", "--message", "hi")
    assert "the name in its address; call it by one it is for in TUNELOOM_CLI_GATEWAY_URL" in " ".join(errors.split())


async def test_a_gateway_of_another_authority_is_named(cluster: Environment, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    status, _, errors = await say(cluster | {"TUNELOOM_CLI_CA": str(other.path)}, "chat", "seed", "--message", "hi")
    assert status == 1
    assert "the gateway's certificate is not of the authority" in " ".join(errors.split())
    status, _, errors = await say(cluster | {"TUNELOOM_CLI_CA": str(other.path)}, "models", "list")
    assert status == 1
    assert errors.startswith("error: the registry's certificate is not of the authority")
    bare = {name: value for name, value in cluster.items() if name.split("_")[-1] not in ("CERTIFICATE", "KEY")}
    bare["TUNELOOM_CLI_API_KEY"] = cluster["TUNELOOM_CLI_API_KEY"]
    status, _, errors = await say(bare, "chat", "seed", "--message", "hi")
    assert status == 1
    assert "TUNELOOM_CLI_CERTIFICATE" in errors


@pytest.mark.parametrize("field", ["gateway_url", "engine_host_url"])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://prod:8000", "is another machine"),
        ("HTTP://prod:8000", "is another machine"),
        (" http://prod:8000", "is another machine"),
        ("prod:8000", "is not an http"),
        ("//prod:8000", "is not an http"),
        ("http://a.localhost:8000", "is another machine"),
    ],
)
def test_no_spelling_of_a_url_sends_keys_in_plain_text(field: str, url: str, told: str) -> None:
    addresses = {"registry_address": "127.0.0.1:1", "trainer_address": "127.0.0.1:2", "gateway_url": "https://prod"}
    with pytest.raises(ValidationError, match=told):
        ClusterSettings.model_validate(addresses | {field: url})


def test_a_clusters_urls_are_read_in_one_spelling() -> None:
    settings = ClusterSettings(
        registry_address="127.0.0.1:1", trainer_address="127.0.0.1:2", gateway_url=" HTTPS://prod:8000/v1/"
    )
    assert settings.gateway_url == "https://prod:8000"
