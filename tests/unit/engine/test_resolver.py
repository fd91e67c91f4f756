from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from tests.unit.engine.fakes import TOKEN, FakeRegistry
from tuneloom_common.errors import DataLoss, Unavailable
from tuneloom_engine.inside import resolver
from tuneloom_engine.inside.adapter import Adapter

MODEL_DIRECTORY = "/cache/" + "0" * 64


@pytest.fixture
def configure(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the environment that a host gives to an engine."""

    def set_(**changes: str) -> None:
        settings = {
            "REGISTRY_ADDRESS": registry.address,
            "REGISTRY_TOKEN": TOKEN,
            "OBJECTS_URL": registry.objects.url,
            "CACHE_DIR": str(tmp_path / "cache"),
            "BLOB_CACHE_DIR": str(tmp_path / "blobs"),
            **changes,
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"TUNELOOM_ENGINE_{name}", value)

    return set_


async def resolve(name: str, *, model: str = MODEL_DIRECTORY) -> Adapter | None:
    return await resolver.resolve(resolver.open_source, model, name)


async def test_an_adapter_of_the_served_base_becomes_a_directory(
    registry: FakeRegistry, configure: Callable[..., None], tmp_path: Path
) -> None:
    base = await registry.publish_model("chat")
    name = await registry.publish_adapter("tuned", base=base)
    configure(SERVES=base)
    adapter = await resolve(name)
    assert adapter is not None
    assert (adapter.name, adapter.directory) == (name, tmp_path / "cache" / registry.versions[name].digest)
    assert (adapter.directory / "adapter_model.safetensors").read_bytes() == b"tuned"


async def test_the_id_is_fixed_by_the_content(registry: FakeRegistry, configure: Callable[..., None]) -> None:
    base = await registry.publish_model("chat")
    one, two = [await registry.publish_adapter(f"tuned-{number}", base=base) for number in (1, 2)]
    configure(SERVES=base)
    ids = [adapter.id for name in (one, two, one) if (adapter := await resolve(name))]
    assert ids[0] == ids[2] != ids[1]
    assert all(0 < each <= 2**60 for each in ids)


@pytest.mark.parametrize("directory", ["/models/{name}", "/cache/{digest}"])
async def test_the_base_may_be_known_by_its_directory(
    registry: FakeRegistry, configure: Callable[..., None], directory: str
) -> None:
    base = await registry.publish_model("chat")
    configure()
    model = directory.format(name=base, digest=registry.versions[base].digest)
    assert await resolve(await registry.publish_adapter("tuned", base=base), model=model)


async def test_what_cannot_be_served_is_none_and_logged(
    registry: FakeRegistry, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    base, other = [await registry.publish_model(model) for model in ("chat", "other")]
    stranger = await registry.publish_adapter("stranger", base=other)
    tall = await registry.publish_adapter("tall", base=base, rank=64)
    merged = await registry.publish("folded", "merged", {"model.safetensors": b"w"}, base=base)
    configure(SERVES=base, MAX_LORA_RANK="32")
    caplog.set_level(logging.WARNING, logger="vllm.tuneloom")
    expected = {
        "ghost--0123456789ab": "no version",
        "../ghost": "not an engine name",
        stranger: "trained on other",
        tall: "TUNELOOM_ENGINE_MAX_LORA_RANK",
        merged: "kind merged",
    }
    for name, sentence in expected.items():
        caplog.clear()
        assert await resolve(name) is None
        assert sentence in caplog.text
    assert "../ghost" not in registry.asked


async def test_an_unknown_base_is_none(registry: FakeRegistry, configure: Callable[..., None]) -> None:
    base = await registry.publish_model("chat")
    configure()
    assert await resolve(await registry.publish_adapter("tuned", base=base), model="some/repository") is None


@pytest.mark.parametrize("failure", [Unavailable("the database is away"), DataLoss("the disk is tired")])
async def test_a_failing_registry_is_a_503(
    registry: FakeRegistry, configure: Callable[..., None], failure: Any
) -> None:
    configure(SERVES="chat--0123456789ab")
    registry.failure = failure
    with pytest.raises(HTTPException) as caught:
        await resolve("tuned--0123456789ab")
    assert caught.value.status_code == 503
    assert failure.message in caught.value.detail


async def test_bad_settings_are_a_503_without_details(configure: Callable[..., None]) -> None:
    configure(MAX_LORA_RANK="7", REGISTRY_TOKEN="secret")
    with pytest.raises(HTTPException) as caught:
        await resolve("tuned--0123456789ab")
    assert caught.value.status_code == 503
    assert "secret" not in caught.value.detail


async def test_register_gives_vllm_a_resolver(
    registry: FakeRegistry, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: dict[str, Any] = {}
    stub("vllm", monkeypatch)
    stub("vllm.lora", monkeypatch)
    stub(
        "vllm.lora.request",
        monkeypatch,
        LoRARequest=lambda name, id_, path: SimpleNamespace(name=name, id=id_, path=path),
    )
    stub(
        "vllm.lora.resolver",
        monkeypatch,
        LoRAResolver=object,
        LoRAResolverRegistry=SimpleNamespace(register_resolver=registered.__setitem__),
    )
    base = await registry.publish_model("chat")
    name = await registry.publish_adapter("tuned", base=base)
    configure(SERVES=base)
    resolver.register()
    request = await registered["tuneloom"].resolve_lora(MODEL_DIRECTORY, name)
    assert request.name == name
    assert Path(request.path).name == registry.versions[name].digest
    assert await registered["tuneloom"].resolve_lora(MODEL_DIRECTORY, "ghost--0123456789ab") is None


def stub(name: str, monkeypatch: pytest.MonkeyPatch, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
