"""The plugin as it works under a host: it asks the host's socket, and knows neither token nor store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import HTTPException

from tests.unit.engine.conftest import MakeSettings
from tests.unit.engine.fakes import FakeRegistry
from tuneloom_common.errors import DataLoss, NotFound, Unavailable
from tuneloom_engine.channel import serving_adapters
from tuneloom_engine.inside import resolver
from tuneloom_engine.inside.hosted import HostedAdapters
from tuneloom_engine.sockets import SocketDirectory
from tuneloom_engine.sources import open_adapters


@pytest.fixture
async def socket(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """A host's channel, named in the environment as a host names it to an engine."""
    with SocketDirectory.create(None) as sockets:
        monkeypatch.setenv("TUNELOOM_ENGINE_ADAPTERS_SOCKET", str(sockets.adapters))
        async with serving_adapters(open_adapters(make_settings(max_lora_rank=32)), sockets.adapters):
            yield sockets.adapters


async def test_an_adapter_of_the_base_becomes_a_directory(
    registry: FakeRegistry, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await registry.publish_model("chat")
    name = await registry.publish_adapter("tuned", base=base)
    monkeypatch.setenv("TUNELOOM_ENGINE_SERVES", base)
    adapter = await resolver.resolve(resolver.open_source, "/cache/elsewhere", name)
    assert adapter is not None
    assert adapter.directory.name == registry.versions[name].digest
    assert (adapter.directory / "adapter_model.safetensors").read_bytes() == b"tuned"
    assert adapter.id == int(registry.versions[name].digest[:15], 16) + 1


async def test_what_does_not_fit_is_none(registry: FakeRegistry, socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = [await registry.publish_model(model) for model in ("chat", "other")]
    monkeypatch.setenv("TUNELOOM_ENGINE_SERVES", base)
    stranger = await registry.publish_adapter("stranger", base=other)
    tall = await registry.publish_adapter("tall", base=base, rank=64)
    for name in ("ghost--0123456789ab", "../../etc/passwd", "a/../b--0123456789ab", stranger, tall, other):
        assert await resolver.resolve(resolver.open_source, base, name) is None


@pytest.mark.parametrize("failure", [Unavailable("the database is away"), DataLoss("the disk is tired")])
async def test_a_failing_registry_is_a_503(
    registry: FakeRegistry, socket: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOM_ENGINE_SERVES", "chat--0123456789ab")
    registry.failure = failure  # type: ignore[assignment]
    with pytest.raises(HTTPException) as caught:
        await resolver.resolve(resolver.open_source, "x", "tuned--0123456789ab")
    assert caught.value.status_code == 503
    assert str(failure) in caught.value.detail


async def test_the_host_s_own_words_arrive(registry: FakeRegistry, socket: Path) -> None:
    with pytest.raises(NotFound, match="ghost--0123456789ab"):
        await HostedAdapters(socket).get("chat--0123456789ab", "ghost--0123456789ab")


async def test_a_host_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="engine host"):
        await HostedAdapters(tmp_path / "gone.sock").get("chat--0123456789ab", "tuned--0123456789ab")
