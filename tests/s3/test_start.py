"""What an operator reads when a store is set up wrong: at the start, with the setting and the next step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.authority import Authority
from tests.object_store import put, read
from tests.s3.conftest import QUICK
from tests.s3.proxy import proxying
from tests.s3.servers import Keys, Server, free_port
from tuneloom_common.errors import InvalidArgument, TuneloomError, Unavailable
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options
from tuneloom_registry import app as registry_app
from tuneloom_registry.settings import RegistrySettings
from tuneloom_trainer import app as trainer_app
from tuneloom_trainer.settings import TrainerSettings

pytestmark = pytest.mark.s3
FILE = "TUNELOOM_REGISTRY_OBJECTS_CREDENTIALS_FILE"


def registry_settings(tmp_path: Path, url: str, options: S3Options, **more: Any) -> RegistrySettings:
    return RegistrySettings(
        port=0,
        objects_url=url,
        objects_endpoint=options.endpoint,
        objects_credentials_file=options.credentials_file,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/registry.db",
        work_dir=tmp_path / "work",
        **more,
    )


async def start_registry(settings: RegistrySettings) -> None:
    async with AsyncExitStack() as stack:
        app = await registry_app.build(settings, stack)
        await app.server.start()
        await app.server.stop(0)


async def test_a_registry_starts_on_a_bucket_and_starts_again(url: str, options: S3Options, tmp_path: Path) -> None:
    for _ in range(2):
        await start_registry(registry_settings(tmp_path, url, options))
    store = ObjectStore(url, options)
    entry = await put(store, tmp_path)
    assert await read(store, entry.sha256)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda one, two: Keys("AKNOBODY", one.secret), "OBJECTS_CREDENTIALS", [FILE, "does not know the access key"]),
        (lambda one, two: Keys(one.access, "x" * 40), "OBJECTS_CREDENTIALS", [FILE, "secret key is wrong"]),
        (lambda one, two: two, "OBJECTS_ACCESS", [FILE, "may not do this"]),
    ],
    ids=["unknown key", "wrong secret", "another's key"],
)
async def test_wrong_keys_stop_the_start(
    server: Server, url: str, options: S3Options, keys_file: Any, tmp_path: Path, change: Any, reason: str, words: Any
) -> None:
    given = change(server.one, server.two)
    wrong = replace(options, credentials_file=keys_file(given))
    with pytest.raises(Unavailable) as caught:
        await start_registry(registry_settings(tmp_path, url, wrong))
    assert caught.value.reason == reason
    for word in words:
        assert word in caught.value.message
    assert given.secret not in caught.value.message
    await says_the_same_later(url, wrong, tmp_path, reason=reason)


async def says_the_same_later(url: str, options: S3Options, tmp_path: Path, *, reason: str) -> None:
    """What is learnt in mid-work, from obstore or from ourselves."""
    store = ObjectStore(url, options, patience=QUICK)
    (tmp_path / "large").write_bytes(bytes(17 << 20))
    for call in (
        lambda: put(store, tmp_path),
        lambda: store.put_file(tmp_path / "large", name="a"),
        lambda: read(store, "0" * 64),
    ):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.reason in (reason, "OBJECTS_ACCESS"), caught.value.message  # a HEAD has no body to say more


async def test_a_missing_bucket_stops_the_start(options: S3Options, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no bucket 'no-such-bucket'.*TUNELOOM_REGISTRY_OBJECTS_URL") as caught:
        await start_registry(registry_settings(tmp_path, "s3://no-such-bucket/x", options))
    assert caught.value.reason == "OBJECTS_BUCKET"
    await says_the_same_later("s3://no-such-bucket/x", options, tmp_path, reason="OBJECTS_BUCKET")


async def test_no_keys_at_all_stop_the_start(
    url: str, options: S3Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=f"none was found; set {FILE}"):
        await start_registry(registry_settings(tmp_path, url, replace(options, credentials_file=None)))


@pytest.mark.parametrize("content", [None, "", "[default]\naws_access_key_id = a\n", "nonsense"])
async def test_a_file_that_has_no_keys_is_named(
    url: str, options: S3Options, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "mine"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidArgument, match=f"{FILE}: {file}"):
        await start_registry(registry_settings(tmp_path, url, replace(options, credentials_file=file)))


@pytest.mark.parametrize(("apart", "words"), [(-20, "20 minutes behind"), (20, "20 minutes ahead of")])
async def test_a_wrong_clock_is_told_with_how_wrong_it_is(url: str, options: S3Options, apart: int, words: str) -> None:
    """The server really refuses: requests are signed with another time."""

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=apart)

    with pytest.raises(Unavailable, match=f"clock is {words} the server's.*NTP") as caught:
        await S3(url, options, clock=clock).check()
    assert caught.value.reason == "OBJECTS_CLOCK"


async def test_a_server_that_is_down_stops_a_registry_and_is_waited_for_by_others(
    url: str, options: S3Options, tmp_path: Path
) -> None:
    down = replace(options, endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=r"does not answer.*TUNELOOM_REGISTRY_OBJECTS_ENDPOINT"):
        await start_registry(registry_settings(tmp_path, url, down))
    settings = TrainerSettings(
        port=0,
        objects_url=url,
        objects_endpoint=down.endpoint,
        objects_credentials_file=down.credentials_file,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/trainer.db",
        work_dir=tmp_path / "trainer",
    )
    with structlog.testing.capture_logs() as logs:
        async with AsyncExitStack() as stack:
            app = await trainer_app.build(settings, stack)
            await app.server.start()
            await app.server.stop(0)
    assert [line["event"] for line in logs if "TUNELOOM_TRAINER_OBJECTS_ENDPOINT" in line["event"]]


async def test_a_bucket_without_a_registry_is_no_store(url: str, options: S3Options, tmp_path: Path) -> None:
    """Nothing in it is known to be absent: the trainer's URL may be wrong by a letter."""
    with pytest.raises(Unavailable, match="TUNELOOM_REGISTRY_OBJECTS_URL is the registry's"):
        await read(ObjectStore(url, options), "0" * 64)


async def test_keys_that_are_exchanged_are_used_soon(
    server: Server, url: str, options: S3Options, keys_file: Callable[[Keys], Path], tmp_path: Path
) -> None:
    file = keys_file(server.two)
    store = ObjectStore(url, replace(options, credentials_file=file), patience=QUICK)
    with pytest.raises(TuneloomError):
        await store.create()
    file.write_text(keys_file(server.one).read_text())
    await ObjectStore(url, options).create()
    async with asyncio.timeout(20):
        while True:
            try:
                entry = await put(store, tmp_path)
                break
            except Unavailable:
                await asyncio.sleep(0.2)
    assert await read(store, entry.sha256)


async def test_over_tls_with_an_authority_of_ones_own(
    server: Server, url: str, options: S3Options, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with proxying(server.endpoint, tls=authority.issue("s3")) as proxy:
        trusting = replace(options, endpoint=proxy.endpoint, ca_file=authority.path)
        await start_registry(registry_settings(tmp_path, url, trusting, objects_ca_file=authority.path))
        store = ObjectStore(url, trusting)
        for content in (b"small", os.urandom(40 << 20)):
            entry = await put(store, tmp_path, content)
            assert await read(store, entry.sha256) == content
            await store.fetch(entry, tmp_path / entry.sha256)
        doubtful = replace(trusting, ca_file=None)
        with pytest.raises(Unavailable, match="TUNELOOM_REGISTRY_OBJECTS_CA_FILE") as caught:
            await start_registry(registry_settings(tmp_path, url, doubtful))
        assert caught.value.reason == "OBJECTS_CERTIFICATE"
        with pytest.raises(Unavailable, match="TUNELOOM_REGISTRY_OBJECTS_CA_FILE"):
            await put(ObjectStore(url, doubtful, patience=QUICK), tmp_path, b"other")


async def test_an_authority_that_is_no_file_is_named(url: str, options: S3Options, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"TUNELOOM_REGISTRY_OBJECTS_CA_FILE: {tmp_path}/none"):
        await start_registry(registry_settings(tmp_path, url, options, objects_ca_file=tmp_path / "none"))
