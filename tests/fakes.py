"""Hand-written stand-ins of a few lines, shared by the tests of several rooms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from pydantic import SecretStr
from uvicorn.server import ServerState

from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2 as versions
from tuneloom.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from tuneloom_client.versions import Model, ModelEvent, Version
from tuneloom_common.errors import InvalidArgument, NotFound, Unavailable
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest
from tuneloom_common.names import EngineName
from tuneloom_common.principals import Principals
from tuneloom_common.tls import ServerTls


class FakeRegistry:
    """A registry in memory. `down` makes every call fail, `asked` lists what was resolved."""

    def __init__(self) -> None:
        self.versions: dict[str, list[versions.Version]] = {}
        self.aliases: dict[str, dict[str, int]] = {}
        self.steps: dict[str, dict[str, int]] = {}
        self.asked: list[str] = []
        self.lists = 0
        self.down = False
        self.sequence = 0
        self.watched_after: list[int] = []
        self.watchers: list[asyncio.Queue[pb.ModelEvent | None]] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    def add(self, model: str, kind: str, *, base: versions.Version | None = None, step: str = "") -> versions.Version:
        """Registers the next version of a model; the first one becomes its default."""
        numbered = self.versions.setdefault(model, [])
        number = len(numbered) + 1
        manifest = Manifest(
            kind=Kind(kind),
            files=(FileEntry(path=f"{model}-{number}", size=1, sha256="0" * 64),),
            base=BaseRef(model=base.name.split("/")[1], digest=base.digest) if base else None,
        )
        version = versions.Version(
            name=f"models/{model}/versions/{number}",
            digest=manifest.digest,
            kind=versions.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.upper()}"),
            manifest_json=manifest.canonical().decode(),
            engine_name=str(EngineName.of(model, manifest.digest)),
        )
        version.create_time.FromSeconds(1_700_000_000 + number)
        numbered.append(version)
        if step:
            self.steps.setdefault(model, {})[step] = number
        else:
            self.aliases.setdefault(model, {}).setdefault("default", number)
        return version

    def move(self, model: str, alias: str, number: int) -> None:
        """Points an alias and tells whoever watches."""
        self.aliases[model][alias] = number
        self.sequence += 1
        event = pb.ModelEvent(sequence=self.sequence, model=f"models/{model}", alias=alias, version=number)
        for queue in self.watchers:
            queue.put_nowait(event)

    def end_watches(self) -> None:
        """Breaks every stream, as a restart would."""
        for queue in self.watchers:
            queue.put_nowait(None)

    async def resolve(self, reference: str) -> Version:
        return Version.of(await self.found(reference))

    async def models(self, *, include_training_jobs: bool = False, at_most: int | None = None) -> list[Model]:
        return [Model.of(model) for model in self.listed()][:at_most]

    async def watch(self, after_sequence: int) -> AsyncIterator[ModelEvent]:
        return (ModelEvent.of(event) async for event in self.watched(after_sequence))

    async def close(self) -> None:
        self.end_watches()

    async def found(self, reference: str) -> versions.Version:
        """What `resolve` answers, as a message; so the other two."""
        self._check_up()
        self.asked.append(reference)
        found = self._find(reference)
        if self.before_answer is not None:
            await self.before_answer()
        return found

    def listed(self) -> list[versions.Model]:
        self._check_up()
        self.lists += 1
        return [
            versions.Model(name=f"models/{name}", aliases=self.aliases[name], latest_version=len(numbered))
            for name, numbered in sorted(self.versions.items())
            if name not in self.steps
        ]

    def watched(self, after_sequence: int) -> AsyncIterator[pb.ModelEvent]:
        self._check_up()
        self.watched_after.append(after_sequence)
        queue: asyncio.Queue[pb.ModelEvent | None] = asyncio.Queue()
        self.watchers.append(queue)
        return self._events(queue)

    async def _events(self, queue: asyncio.Queue[pb.ModelEvent | None]) -> AsyncIterator[pb.ModelEvent]:
        try:
            while event := await queue.get():
                yield event
        finally:
            self.watchers.remove(queue)
        raise Unavailable("the registry went away")

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("the registry does not answer; is it running?")

    def _find(self, reference: str) -> versions.Version:
        reference = re.sub(r"^models/(.+)/versions/(\d+)$", r"\1:\2", reference)
        match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*?)(?:(--|:|@sha256:|@)(.+))?", reference)
        if not match:
            raise InvalidArgument(f"{reference!r} is not a model name", field="reference")
        name, sign, rest = match.groups()
        for version in self.versions.get(name, []):
            number = int(version.name.rpartition("/")[2])
            pointers = {**self.aliases.get(name, {}), **self.steps.get(name, {})}
            if (
                (sign is None and pointers.get("default") == number)
                or (sign == "@" and pointers.get(rest) == number)
                or (sign == ":" and rest == str(number))
                or (sign in ("--", "@sha256:") and version.digest.startswith(rest))
            ):
                return version
        raise NotFound(f"nothing is called {reference!r}")


class FakeRegistryService(RegistryServiceServicer):
    """The same over gRPC, one model a page."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry

    async def ResolveVersion(self, request: Any, context: Any) -> versions.Version:
        return await self._registry.found(request.reference)

    async def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        models = self._registry.listed()
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(models) else ""
        return pb.ListModelsResponse(models=models[start : start + 1], next_page_token=token)

    async def WatchModels(self, request: Any, context: Any) -> AsyncIterator[pb.ModelEvent]:
        events = self._registry.watched(request.after_sequence)
        await context.send_initial_metadata(())
        async for event in events:
            yield event


@asynccontextmanager
async def serve_registry(
    registry: FakeRegistry, *, token: str | None = None, port: int = 0, tls: ServerTls | None = None
) -> AsyncIterator[str]:
    """Runs the fake registry as a gRPC server on loopback; yields its address."""
    service = FakeRegistryService(registry)  # type: ignore[abstract]
    server = await build_server(
        domain="registry.tuneloom",
        principals=Principals(admin_token=SecretStr(token) if token else None),
        services=[
            (
                "tuneloom.registry.v1.RegistryService",
                lambda server: add_RegistryServiceServicer_to_server(service, server),
            )
        ],
    )
    bound = bind(server, f"127.0.0.1:{port}", setting="port", tls=tls)
    await server.start()
    yield f"127.0.0.1:{bound}"
    registry.end_watches()
    await server.stop(0)


class FakeEngine:
    """An OpenAI-compatible server. `answer` can be replaced; `requests` holds (path, body, headers)."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.answer: Callable[[web.Request, Any], Awaitable[web.StreamResponse]] = complete
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.path, body, {k.lower(): v for k, v in request.headers.items()}))
        return await self.answer(request, body)

    @asynccontextmanager
    async def running(self, *, port: int = 0) -> AsyncIterator[FakeEngine]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self.handle)
        async with TestServer(app, port=port or None, handler_cancellation=True) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self


async def complete(request: web.Request, body: Any) -> web.StreamResponse:
    """Says hello, word by word when asked to stream."""
    usage = {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}
    meta = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "hello there"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {**meta, "object": "chat.completion", "choices": [choice], "usage": usage},
            headers={"x-engine-secret": "never shown"},
        )
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for word in ("hello", " there"):
        delta = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
        chunk = {**meta, "object": "chat.completion.chunk", "choices": [delta]}
        await response.write(event(chunk))
    last = {**meta, "object": "chat.completion.chunk", "choices": [], "usage": usage}
    await response.write(event(last) + b"data: [DONE]\n\n")
    return response


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + web.json_response(data).body + b"\n\n"  # type: ignore[operator]


@asynccontextmanager
async def served(app: FastAPI, *, protocol: Any = "httptools") -> AsyncIterator[str]:
    """Runs an application on a loopback port, with uvicorn's own protocol or another; yields its URL."""
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    async with app.router.lifespan_context(app):
        server = await loop.create_server(
            lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
            "127.0.0.1",
            0,
        )
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.close()
            for connection in list(state.connections):
                connection.transport.close()
            await asyncio.gather(*state.tasks, return_exceptions=True)
