from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from tests.unit.engine.fakes import TOKEN, FakeRegistry, running_registry
from tuneloom_engine.app import build
from tuneloom_engine.settings import HostSettings

MakeSettings = Callable[..., HostSettings]


@dataclass
class Fleet:
    """What the fake engines are told and what they have done."""

    directory: Path

    def tell(self, name: str, what: str, content: str = "") -> Path:
        path = self.directory / f"{name}.{what}"
        path.write_text(content)
        return path

    @property
    def starts(self) -> list[str]:
        log = self.directory / "starts"
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def most_at_once(self) -> int:
        return max(int(line.split()[2]) for line in (self.directory / "starts").read_text().splitlines()) + 1


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[FakeRegistry]:
    async with running_registry(tmp_path) as registry:
        yield registry


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    (tmp_path / "fleet").mkdir()
    monkeypatch.setenv("FAKE_ENGINE_DIR", str(tmp_path / "fleet"))
    return Fleet(tmp_path / "fleet")


@pytest.fixture
def make_settings(registry: FakeRegistry, tmp_path: Path) -> MakeSettings:
    def make(**changes: Any) -> HostSettings:
        return HostSettings(
            **{
                "registry_address": registry.address,
                "registry_token": SecretStr(TOKEN),
                "objects_url": registry.objects.url,
                "cache_dir": tmp_path / "cache",
                "blob_cache_dir": tmp_path / "blobs",
                "log_dir": tmp_path / "logs",
                "command": (sys.executable, str(Path(__file__).with_name("fake_engine.py"))),
                "drain_seconds": 5,
                **changes,
            }
        )

    return make


class Clock:
    """Time that passes when a test says so, and a little at each look, so that no two moments are one."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.0001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_host(make_settings: MakeSettings, fleet: Fleet, clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    """Opens a host with changed settings; its engines end with the test."""
    clients: list[TestClient[Any, Any]] = []

    async def open_(**changes: Any) -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = TestClient(TestServer(build(make_settings(**changes), clock=clock)))
        await client.start_server()
        clients.append(client)
        return client

    yield open_
    for client in clients:
        await client.close()
