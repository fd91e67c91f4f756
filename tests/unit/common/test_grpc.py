from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2 as versions
from tuneloom.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    RegistryServiceStub,
    add_RegistryServiceServicer_to_server,
)
from tuneloom_common import errors, logging
from tuneloom_common.errors import BY_CODE, FailedPrecondition, InvalidArgument, NotFound, TuneloomError, Unavailable
from tuneloom_common.grpc import bind, build_server, from_rpc_error, open_channel, translated
from tuneloom_common.principals import PrincipalEntry, Principals

SERVICE = "tuneloom.registry.v1.RegistryService"
TOKEN = "s3cret"
GET = pb.GetModelRequest(name="models/a")
Answer = Callable[[], Awaitable[versions.Model]]


class Example(RegistryServiceServicer):
    """One method of each shape, all answered by `answer`."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []
        self.error: Exception | None = None

    async def answer(self) -> None:
        self.request_ids.append(logging.request_id.get())
        if self.error:
            raise self.error

    async def GetModel(self, request: Any, context: Any) -> versions.Model:
        await self.answer()
        return versions.Model(name=request.name)

    async def WatchModels(self, request: Any, context: Any) -> AsyncIterator[pb.ModelEvent]:
        yield pb.ModelEvent(sequence=1)
        await self.answer()
        yield pb.ModelEvent(sequence=2)

    async def UploadBlob(self, request_iterator: Any, context: Any) -> versions.Blob:
        size = 0
        async for part in request_iterator:
            size += len(part.chunk)
        await self.answer()
        return versions.Blob(size_bytes=size)


@asynccontextmanager
async def serving(service: Any, *, token: str | None = None) -> AsyncIterator[str]:
    server = await build_server(
        domain="example.tuneloom",
        principals=Principals(admin_token=SecretStr(token) if token else None),
        services=[(SERVICE, lambda server: add_RegistryServiceServicer_to_server(service, server))],
    )
    port = bind(server, "127.0.0.1:0", setting="PORT")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
def service() -> Example:
    return Example()  # type: ignore[abstract]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def connect(
    stack: AsyncExitStack, service: Example, *, server: str | None = None, client: str | None = None
) -> Any:
    """A stub of a new server; `server` and `client` are the tokens of the two sides."""
    address = await stack.enter_async_context(serving(service, token=server))
    return RegistryServiceStub(await stack.enter_async_context(open_channel(address, token=client)))


async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
    for _ in range(3):
        yield pb.UploadBlobRequest(chunk=b"abc")


async def use_every_shape(stub: Any) -> tuple[str, list[int], int]:
    model = await stub.GetModel(GET)
    events = [event.sequence async for event in stub.WatchModels(pb.WatchModelsRequest())]
    return model.name, events, (await stub.UploadBlob(parts())).size_bytes


async def test_the_right_token_opens_every_shape_of_call(stack: AsyncExitStack, service: Example) -> None:
    stub = await connect(stack, service, server=TOKEN, client=TOKEN)
    assert await use_every_shape(stub) == ("models/a", [1, 2], 9)


async def test_without_a_token_on_the_server_every_call_is_open(stack: AsyncExitStack, service: Example) -> None:
    stub = await connect(stack, service, client="any")
    assert await use_every_shape(stub) == ("models/a", [1, 2], 9)


@pytest.mark.parametrize("sent", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * 4000])
async def test_a_wrong_token_is_told_and_runs_nothing(
    stack: AsyncExitStack, service: Example, sent: str | None
) -> None:
    stub = await connect(stack, service, server=TOKEN, client=sent)
    said = set()
    for call in (stub.GetModel(GET), stub.UploadBlob(parts()), anext(aiter(stub.WatchModels(pb.WatchModelsRequest())))):
        with pytest.raises(errors.Unauthenticated) as caught, translated("example"):
            await call
        assert caught.value.reason == "INVALID_KEY"
        assert TOKEN not in caught.value.message
        said.add(caught.value.message)
    assert len(said) == 1
    assert service.request_ids == []


@pytest.mark.parametrize("header", [TOKEN, f"bearer {TOKEN}", f"Basic {TOKEN}", f"Bearer  {TOKEN}", "Bearer"])
async def test_the_header_has_one_form(stack: AsyncExitStack, service: Example, header: str) -> None:
    stub = await connect(stack, service, server=TOKEN)
    with pytest.raises(errors.Unauthenticated), translated("example"):
        await stub.GetModel(GET, metadata=(("authorization", header),))
    await stub.GetModel(GET, metadata=(("authorization", f"Bearer {TOKEN}"),))


@pytest.mark.parametrize("leaf", BY_CODE.values(), ids=lambda leaf: leaf.__name__)
async def test_errors_arrive_as_they_were_raised(
    stack: AsyncExitStack, service: Example, leaf: type[TuneloomError]
) -> None:
    stub = await connect(stack, service)
    message = "模型 'a' does not fit: 100%\nnext step"
    service.error = leaf(message, reason="A_REASON", field="some.field", metadata={"k": "v"})
    for call in (stub.GetModel(GET), stub.UploadBlob(parts()), _drain(stub.WatchModels(pb.WatchModelsRequest()))):
        with pytest.raises(leaf) as caught, translated("example"):
            await call
        error = caught.value
        assert type(error) is leaf
        assert error.message == message
        assert (error.reason, error.metadata) == ("A_REASON", {"k": "v"})
        assert error.field == ("some.field" if leaf is InvalidArgument else "")


async def _drain(call: Any) -> list[int]:
    return [event.sequence async for event in call]


async def test_what_was_streamed_before_an_error_arrives(stack: AsyncExitStack, service: Example) -> None:
    stub = await connect(stack, service)
    service.error = NotFound("gone")
    seen = []

    async def watch() -> None:
        async for event in stub.WatchModels(pb.WatchModelsRequest()):
            seen.append(event.sequence)

    with pytest.raises(NotFound), translated("example"):
        await watch()
    assert seen == [1]


@pytest.mark.parametrize("message", ["x" * 100_000, "模" * 50_000, "🙂" * 10_000, "x" + "é" * 5_000])
async def test_a_long_message_still_arrives_as_an_error(stack: AsyncExitStack, service: Example, message: str) -> None:
    """A status travels in headers, which clients refuse above 8 KiB; the error must not turn into another."""
    address = await stack.enter_async_context(serving(service))
    plain = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    service.error = InvalidArgument(message, reason="LONG", field="f")
    for _ in range(20):  # clients refuse at random between the soft and the hard limit
        with pytest.raises(InvalidArgument) as caught, translated("example"):
            await RegistryServiceStub(plain).GetModel(GET)  # type: ignore[misc]
        assert (caught.value.reason, caught.value.field) == ("LONG", "f")
        assert message.startswith(caught.value.message.removesuffix("…"))
        assert len(caught.value.message) >= 290


@pytest.mark.parametrize(
    "error", [KeyError("/srv/private/path"), RuntimeError("password=hunter2"), OSError(28, "full")]
)
async def test_a_bug_is_logged_not_told_and_ends_nothing(
    stack: AsyncExitStack, service: Example, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = await connect(stack, service)
    service.error = error
    for call in (stub.GetModel(GET), stub.UploadBlob(parts()), _drain(stub.WatchModels(pb.WatchModelsRequest()))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        told = f"{caught.value.details()} {caught.value.trailing_metadata()}"
        assert "private" not in told
        assert "hunter2" not in told
        assert "Traceback" not in told
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert any(known in str(caught.value.details()) for known in service.request_ids)
        ours = from_rpc_error(caught.value, "example")
        assert (type(ours), ours.reason) == (TuneloomError, "INTERNAL")
    logged = "".join(capsys.readouterr())
    assert type(error).__name__ in logged
    service.error = None
    assert await use_every_shape(stub) == ("models/a", [1, 2], 9)


async def test_a_handlers_own_abort_is_left_alone(stack: AsyncExitStack) -> None:
    class Aborting(RegistryServiceServicer):
        async def GetModel(self, request: Any, context: Any) -> versions.Model:
            await context.abort(grpc.StatusCode.CANCELLED, "enough")
            raise AssertionError

    address = await stack.enter_async_context(serving(Aborting()))  # type: ignore[abstract]
    stub: Any = RegistryServiceStub(await stack.enter_async_context(open_channel(address, token=None)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetModel(GET)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.CANCELLED, "enough")


async def test_one_request_id_goes_through_every_hop(stack: AsyncExitStack, service: Example) -> None:
    far = await connect(stack, service)

    class Near(RegistryServiceServicer):
        async def GetModel(self, request: Any, context: Any) -> versions.Model:
            await use_every_shape(far)
            return versions.Model(name=logging.request_id.get())

    address = await stack.enter_async_context(serving(Near()))  # type: ignore[abstract]
    near: Any = RegistryServiceStub(await stack.enter_async_context(open_channel(address, token=None)))
    token = logging.request_id.set("req-42")
    try:
        answer = await near.GetModel(GET)
    finally:
        logging.request_id.reset(token)
    assert answer.name == "req-42"
    assert service.request_ids == ["req-42"] * 3


async def test_calls_without_a_request_id_get_their_own(stack: AsyncExitStack, service: Example) -> None:
    stub = await connect(stack, service)
    await asyncio.gather(*(stub.GetModel(GET) for _ in range(5)))
    assert len({*service.request_ids, ""}) == 6


async def test_a_taken_port_is_named_with_its_setting(stack: AsyncExitStack, service: Example) -> None:
    address = await stack.enter_async_context(serving(service))
    second = await build_server(domain="x", services=[])
    with pytest.raises(FailedPrecondition, match=f"{address} is in use.*TUNELOOM_X_PORT") as caught:
        bind(second, address, setting="TUNELOOM_X_PORT")
    assert caught.value.reason == "PORT_IN_USE"
    await second.stop(0)


async def test_a_silent_server_is_unavailable_with_the_next_step(stack: AsyncExitStack) -> None:
    async with serving(Example()) as address:  # type: ignore[abstract]
        pass
    stub: Any = RegistryServiceStub(await stack.enter_async_context(open_channel(address, token=None)))
    with pytest.raises(Unavailable, match="the registry does not answer; is it running"), translated("registry"):
        await stub.GetModel(GET)


async def test_health_is_open_and_speaks_for_every_service(stack: AsyncExitStack, service: Example) -> None:
    address = await stack.enter_async_context(serving(service, token=TOKEN))
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(("sent", "open_"), [(TOKEN, True), ("wrong", False), (None, False)])
async def test_reflection_needs_the_token(
    stack: AsyncExitStack, service: Example, sent: str | None, open_: bool
) -> None:
    address = await stack.enter_async_context(serving(service, token=TOKEN))
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    metadata = (("authorization", f"Bearer {sent}"),) if sent else ()
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata
    )
    if not open_:
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        return
    listed = await call.read()
    assert SERVICE in {service.name for service in listed.list_services_response.service}


async def test_a_method_that_does_not_exist_is_unimplemented(stack: AsyncExitStack, service: Example) -> None:
    channel = await stack.enter_async_context(
        open_channel(await stack.enter_async_context(serving(service)), token=None)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/{SERVICE}/Nonsense")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
async def restricted(stack: AsyncExitStack, service: Example) -> str:
    """The address of a server where "reader" may only read; UploadBlob has no scope of its own."""
    hashed = hashlib.sha256(b"reader").hexdigest()
    server = await build_server(
        domain="example.tuneloom",
        principals=Principals([PrincipalEntry(id="reader", token_sha256=hashed, scopes=frozenset({"registry:read"}))]),
        scopes={"GetModel": "registry:read", "WatchModels": "registry:write"},
        services=[(SERVICE, lambda server: add_RegistryServiceServicer_to_server(service, server))],
    )
    port = bind(server, "127.0.0.1:0", setting="PORT")
    await server.start()
    stack.push_async_callback(server.stop, 0)
    return f"127.0.0.1:{port}"


async def test_a_principal_may_do_what_its_scopes_say(stack: AsyncExitStack, restricted: str) -> None:
    stub: Any = RegistryServiceStub(await stack.enter_async_context(open_channel(restricted, token="reader")))
    assert (await stub.GetModel(GET)).name == "models/a"
    for call, scope in (
        (anext(aiter(stub.WatchModels(pb.WatchModelsRequest()))), "registry:write"),
        (stub.UploadBlob(parts()), "admin"),
    ):
        with pytest.raises(errors.PermissionDenied, match=f"it needs the scope '{scope}'"), translated("example"):
            await call


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_speaks_both_versions(stack: AsyncExitStack, service: Example, version: str) -> None:
    address = await stack.enter_async_context(serving(service))
    channel = await stack.enter_async_context(open_channel(address, token=None))
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name for service in (await anext(aiter(answers))).list_services_response.service}
    assert {SERVICE, f"grpc.reflection.{version}.ServerReflection"} <= names
