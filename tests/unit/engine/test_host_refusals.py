"""What the host does not serve, and what it keeps to itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.unit.engine.conftest import Fleet
from tests.unit.engine.fakes import TOKEN, FakeRegistry
from tests.unit.engine.hosts import OpenHost, ready
from tuneloom_common.errors import Unavailable


async def test_an_engine_is_reached_by_its_user_only(registry: FakeRegistry, open_host: OpenHost) -> None:
    name = await registry.publish_model("chat")
    client = await open_host()
    first = await ready(client, name)
    socket = Path(first["url"].removeprefix("unix:"))
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert socket.parent.stat().st_uid == os.getuid()
    tables = [Path(f"/proc/{first['pid']}/net/{table}").read_text() for table in ("tcp", "tcp6")]
    inodes = {f"socket:[{line.split()[9]}]" for table in tables for line in table.splitlines()[1:]}
    held = {str(handle.readlink()) for handle in Path(f"/proc/{first['pid']}/fd").iterdir()}
    assert not held & inodes  # no port at all
    async with client.delete(f"/replicas/{name}") as response:
        assert response.status == 204
    assert (await ready(client, name))["url"] != first["url"]


async def test_an_engine_learns_no_secret(
    registry: FakeRegistry, open_host: OpenHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TUNELOOM_ENGINE_REGISTRY_TOKEN", "TUNELOOM_ENGINE_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(variable, "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    client = await open_host(token=SecretStr("secret"))
    headers = {"Authorization": "Bearer secret"}
    name = await registry.publish_model("chat")
    async with client.post(f"/replicas/{name}", headers=headers) as response:
        pid = (await response.json())["pid"]
    environment = dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if line)
    assert "secret" not in environment.values()
    assert TOKEN not in environment.values()
    assert {name for name in environment if name.startswith("TUNELOOM_")} == {
        "TUNELOOM_ENGINE_ADAPTERS_SOCKET",
        "TUNELOOM_ENGINE_SERVES",
        "TUNELOOM_PARENT_PID",
    }
    assert "PATH" in environment


async def test_an_unknown_version_is_not_found(registry: FakeRegistry, open_host: OpenHost) -> None:
    answer = await ready(await open_host(), "ghost--0123456789ab", status=404)
    assert "ghost--0123456789ab" in answer["error"]


@pytest.mark.parametrize(
    "name",
    [
        "chat",
        "chat--0123456789AB",
        "chat--0123456789abc",
        "..%2F..%2Fetc--0123456789ab",
        "a%2Fb--0123456789ab",
        "..--0123456789ab",
        "-chat--0123456789ab",
        "chat---0123456789ab",
        "chat%00--0123456789ab",
        "chat--0123456789ab%0A",
        "--0123456789ab",
    ],
)
async def test_what_is_no_engine_name_reaches_nobody(registry: FakeRegistry, open_host: OpenHost, name: str) -> None:
    client = await open_host()
    await ready(client, name, status=400)
    assert registry.asked == []


async def test_a_manifest_that_is_not_what_the_name_says_is_refused(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet
) -> None:
    name, other = [await registry.publish_model(model) for model in ("chat", "other")]
    client = await open_host()
    genuine = registry.versions[name]
    registry.versions[name] = registry.versions[other]
    answer = await ready(client, name, status=500)
    assert answer["reason"] == "DIGEST_MISMATCH"
    forged = type(genuine)()
    forged.CopyFrom(genuine)
    forged.manifest_json += " "
    registry.versions[name] = forged
    await ready(client, name, status=500)
    assert fleet.starts == []


async def test_damaged_weights_are_not_served(
    registry: FakeRegistry, open_host: OpenHost, fleet: Fleet, tmp_path: Path
) -> None:
    name = await registry.publish_model("chat")
    for blob in (tmp_path / "objects/blobs/sha256").iterdir():
        blob.write_bytes(bytes(blob.stat().st_size))
    answer = await ready(await open_host(), name, status=500)
    assert answer["reason"] == "DIGEST_MISMATCH"
    assert fleet.starts == []
    assert list((tmp_path / "cache").glob("*.*")) == []
    assert not (tmp_path / "cache" / registry.versions[name].digest).exists()


async def test_an_adapter_has_no_engine_of_its_own(registry: FakeRegistry, open_host: OpenHost) -> None:
    base = await registry.publish_model("chat")
    adapter = await registry.publish_adapter("tuned", base=base)
    answer = await ready(await open_host(), adapter, status=409)
    assert answer["reason"] == "NOT_FULL_WEIGHTS"


async def test_without_the_engine_environment_the_answer_says_how_to_get_it(
    registry: FakeRegistry, open_host: OpenHost, tmp_path: Path
) -> None:
    name = await registry.publish_model("chat")
    client = await open_host(command=(), python=tmp_path / "nowhere/python")
    answer = await ready(client, name, status=409)
    assert answer["reason"] == "ENGINE_NOT_INSTALLED"
    assert "make install-engine" in answer["error"]
    assert not (tmp_path / "cache").exists()


async def test_a_registry_that_fails_is_unavailable(registry: FakeRegistry, open_host: OpenHost) -> None:
    registry.failure = Unavailable("the database is away")
    answer = await ready(await open_host(), "chat--0123456789ab", status=503)
    assert "database is away" in answer["error"]


async def test_a_wrong_token_is_named(registry: FakeRegistry, open_host: OpenHost) -> None:
    answer = await ready(await open_host(registry_token=None), "chat--0123456789ab", status=503)
    assert "TUNELOOM_ENGINE_REGISTRY_TOKEN" in answer["error"]
