"""Real handshakes over gRPC, with an authority of our own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.authority import Authority, Files
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2 as versions
from tuneloom.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    RegistryServiceStub,
    add_RegistryServiceServicer_to_server,
)
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, TuneloomError, Unavailable
from tuneloom_common.grpc import bind, build_server, from_rpc_error, open_channel
from tuneloom_common.grpc.renewal import RenewedChannel
from tuneloom_common.tls import PeerTls, ServerTls
from tuneloom_common.tls.pairs import Pair

SERVICE = "tuneloom.registry.v1.RegistryService"
SETTING = "TUNELOOM_TEST_REGISTRY_"


class Example(RegistryServiceServicer):
    """`WatchModels` tells one event, and another when it may end."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def GetModel(self, request: Any, context: Any) -> versions.Model:
        return versions.Model(name=request.name)

    async def WatchModels(self, request: Any, context: Any) -> AsyncIterator[pb.ModelEvent]:
        yield pb.ModelEvent(sequence=1)
        await self.end.wait()
        yield pb.ModelEvent(sequence=2)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def service() -> Example:
    return Example()  # type: ignore[abstract]


@asynccontextmanager
async def serving(service: Example, tls: ServerTls | None) -> AsyncIterator[int]:
    server = await build_server(
        domain="example.tuneloom",
        services=[(SERVICE, lambda server: add_RegistryServiceServicer_to_server(service, server))],
    )
    port = bind(server, "127.0.0.1:0", setting="PORT", tls=tls)
    await server.start()
    yield port
    await server.stop(0)


def peer(authority: Authority, files: Files | None = None, *, server_name: str = "") -> PeerTls:
    return PeerTls(str(authority.path), files.pair if files else None, server_name, SETTING)


async def called(address: str, tls: PeerTls | None) -> str:
    """What a call over a fresh channel answers, or how it fails."""
    async with open_channel(address, token=None, tls=tls) as channel:
        return await asked(channel, tls)


async def asked(channel: Any, tls: PeerTls | None) -> str:
    import grpc

    stub: Any = RegistryServiceStub(channel)
    try:
        return (await stub.GetModel(pb.GetModelRequest(name="models/a"), timeout=10)).name
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, "registry", tls=tls, setting=SETTING) from None


async def refused(address: str, tls: PeerTls | None) -> str:
    with pytest.raises(Unavailable) as caught:
        await called(address, tls)
    assert caught.value.reason == "HANDSHAKE_FAILED"
    return caught.value.message


async def test_the_right_certificate(authority: Authority, service: Example) -> None:
    async with serving(service, ServerTls(authority.issue("server").pair)) as port:
        for host in ("localhost", "127.0.0.1"):
            assert await called(f"{host}:{port}", peer(authority)) == "models/a"


async def test_what_is_wrong_with_a_certificate_is_said_with_the_next_step(
    authority: Authority, service: Example, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    expired = authority.issue("expired", valid_from=-2, valid_to=-1)
    early = authority.issue("early", valid_from=1, valid_to=2)
    elsewhere = authority.issue("elsewhere", hosts=["registry.example"])
    async with serving(service, ServerTls(authority.issue("server").pair)) as port:
        said = await refused(f"localhost:{port}", peer(other))
        assert str(other.path) in said
        assert f"set {SETTING}CA" in said
        assert f"set {SETTING}CA" in await refused(f"localhost:{port}", None)
    async with serving(service, ServerTls(expired.pair)) as port:
        assert "has expired" in await refused(f"localhost:{port}", peer(authority))
    async with serving(service, ServerTls(early.pair)) as port:
        assert "not valid yet" in await refused(f"localhost:{port}", peer(authority))
    async with serving(service, ServerTls(elsewhere.pair)) as port:
        assert f"set {SETTING}SERVER_NAME" in await refused(f"localhost:{port}", peer(authority))
        assert await called(f"localhost:{port}", peer(authority, server_name="registry.example")) == "models/a"
    async with serving(service, None) as port:
        assert "does not speak TLS" in await refused(f"localhost:{port}", peer(authority))


async def test_nobody_there_is_no_matter_of_certificates(authority: Authority) -> None:
    with pytest.raises(Unavailable, match="is it running") as caught:
        await called("localhost:1", peer(authority))
    assert caught.value.reason != "HANDSHAKE_FAILED"


async def test_clients_show_a_certificate_where_one_is_asked_for(
    authority: Authority, service: Example, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").issue("strange")
    ours = authority.issue("client")
    async with serving(service, ServerTls(authority.issue("server").pair, authority.path)) as port:
        address = f"localhost:{port}"
        assert await called(address, peer(authority, ours)) == "models/a"
        assert f"{SETTING}CERTIFICATE and {SETTING}KEY" in await refused(address, peer(authority))
        assert str(stranger.certificate) in await refused(address, peer(authority, stranger))


async def test_several_servers_under_one_name_are_one(authority: Authority, service: Example) -> None:
    tls = ServerTls(authority.issue("server", hosts=["registry"]).pair)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(service, tls))
        async with serving(service, tls) as second:
            address = f"ipv4:127.0.0.1:{first},127.0.0.1:{second}"
            tls_peer = peer(authority, server_name="registry")
            channel = await stack.enter_async_context(open_channel(address, token=None, tls=tls_peer))
            assert await asked(channel, tls_peer) == "models/a"
        for _ in range(4):
            assert await asked(channel, tls_peer) == "models/a"


async def test_a_rotated_server_certificate_ends_no_stream(
    authority: Authority, service: Example, tmp_path: Path
) -> None:
    files = authority.issue("server")
    tls = peer(authority)
    async with (
        serving(service, ServerTls(files.pair)) as port,
        open_channel(f"localhost:{port}", token=None, tls=tls) as channel,
    ):
        stub: Any = RegistryServiceStub(channel)
        stream = aiter(stub.WatchModels(pb.WatchModelsRequest()))
        assert (await anext(stream)).sequence == 1
        renewed = Authority(tmp_path, "renewed")
        renewed.issue("server")
        assert await called(f"localhost:{port}", peer(renewed)) == "models/a"
        assert str(authority.path) in await refused(f"localhost:{port}", tls)
        service.end.set()
        assert (await anext(stream)).sequence == 2


async def test_a_client_takes_up_what_was_renewed_and_ends_no_stream(
    authority: Authority, service: Example, tmp_path: Path
) -> None:
    """Authority, certificate and key are replaced below a client that stays connected."""
    server, client = authority.issue("server"), authority.issue("client")
    tls = peer(authority, client)
    async with (
        serving(service, ServerTls(server.pair, authority.path)) as port,
        open_channel(f"localhost:{port}", token=None, tls=tls) as channel,
    ):
        stub: Any = RegistryServiceStub(channel)
        stream = aiter(stub.WatchModels(pb.WatchModelsRequest()))
        assert (await anext(stream)).sequence == 1
        renewed = Authority(tmp_path, "renewed")
        renewed.issue("server")
        renewed.issue("client")
        shutil.copy(renewed.path, authority.path)
        assert await asked(channel, tls) == "models/a"
        service.end.set()
        assert (await anext(stream)).sequence == 2
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert isinstance(channel, RenewedChannel)
        async with asyncio.timeout(5):
            await asyncio.gather(*channel._leaving)


async def test_a_volume_that_swaps_a_link_is_seen(authority: Authority, service: Example, tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret: the files are links into a directory that is a link."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for number in (1, 2):
        issuer = Authority(tmp_path, f"authority-{number}")
        files = issuer.issue(f"number-{number}")
        version = mounted / f"..{number}"
        version.mkdir()
        for file, name in ((files.certificate, "tls.crt"), (files.key, "tls.key"), (issuer.path, "ca.crt")):
            shutil.copy(file, version / name)
    data = mounted / "..data"
    data.symlink_to("..1")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mounted / name).symlink_to(f"..data/{name}")
    tls = PeerTls(str(mounted / "ca.crt"))
    async with (
        serving(service, ServerTls(Pair(mounted / "tls.crt", mounted / "tls.key"))) as port,
        open_channel(f"localhost:{port}", token=None, tls=tls) as channel,
    ):
        assert await asked(channel, tls) == "models/a"
        fresh = mounted / "..fresh"
        fresh.symlink_to("..2")
        fresh.replace(data)
        assert await asked(channel, tls) == "models/a"
        assert await called(f"localhost:{port}", PeerTls(str(tmp_path / "authority-2.crt"))) == "models/a"


@pytest.mark.parametrize("damage", ["half", "another key", "no file", "empty"])
async def test_half_of_a_new_pair_leaves_the_old_one(authority: Authority, service: Example, damage: str) -> None:
    files = authority.issue("server")
    async with serving(service, ServerTls(files.pair)) as port:
        address, tls = f"localhost:{port}", peer(authority)
        assert await called(address, tls) == "models/a"
        content = files.certificate.read_bytes()
        if damage == "half":
            files.certificate.write_bytes(content[: len(content) // 2])
        elif damage == "another key":
            files.key.write_bytes(authority.issue("another").key.read_bytes())
        elif damage == "no file":
            files.certificate.unlink()
        else:
            files.key.write_bytes(b"")
        with capture_logs() as logs:
            for _ in range(3):
                assert await called(address, tls) == "models/a"
        told = [entry["event"] for entry in logs]
        assert len(told) == 1
        assert str(files.key if damage == "empty" else files.certificate) in told[0]
        with capture_logs() as logs:
            authority.issue("server")
            assert await called(address, tls) == "models/a"
        assert [entry["event"] for entry in logs] == ["certificates were renewed"]


def test_bad_files_stop_the_start_by_name(authority: Authority, tmp_path: Path) -> None:
    files, other = authority.issue("server"), authority.issue("other")
    empty = tmp_path / "empty.crt"
    empty.touch()
    missing = tmp_path / "missing.crt"
    bad: list[tuple[Any, Path]] = [
        (ServerTls(Files(files.certificate, other.key).pair), files.certificate),
        (ServerTls(Files(missing, files.key).pair), missing),
        (ServerTls(files.pair, empty), empty),
        (PeerTls(str(missing)), missing),
        (PeerTls(str(authority.path), Files(files.certificate, other.key).pair), other.key),
    ]
    for tls, named in bad:
        for make in (tls.context, tls.credentials):
            with pytest.raises(FailedPrecondition, match=named.name):
                make()


def test_a_key_that_others_may_read_is_told(authority: Authority) -> None:
    files = authority.issue("server")
    for mode, told in ((0o600, 0), (0o640, 1), (0o604, 1)):
        files.key.chmod(mode)
        for tls in (ServerTls(files.pair), PeerTls(str(authority.path), files.pair)):
            with capture_logs() as logs:
                tls.credentials()
            assert len(logs) == told
            assert all(str(files.key) in entry["event"] for entry in logs)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"certificate": Path("c"), "ca": "ca"}, "KEY"),
        ({"key": Path("k"), "ca": "ca"}, "CERTIFICATE"),
        ({"certificate": Path("c"), "key": Path("k")}, "CA"),
        ({"server_name": "x"}, "CA"),
    ],
)
def test_half_of_the_settings_is_none(given: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{SETTING}{missing}: needed"):
        PeerTls.of(**{"ca": "", "certificate": None, "key": None, "server_name": "", "setting": SETTING} | given)


def test_without_settings_there_is_no_tls() -> None:
    assert PeerTls.of(ca="", certificate=None, key=None, server_name="", setting=SETTING) is None


def test_the_machines_own_authorities() -> None:
    try:
        PeerTls("system").credentials()
    except TuneloomError as error:
        pytest.fail(f"{error}")
