"""A registry over SQLite and a directory, and artifacts to put into it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.databases.kinds import Databases
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1 import versions_pb2
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom_common.database import Database, open_database
from tuneloom_common.grpc import open_channel
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, FileEntry, Manifest, Template
from tuneloom_registry.app import RegistryApp, build
from tuneloom_registry.settings import RegistrySettings
from tuneloom_registry.store import VersionStore

TEMPLATE = Template(tokenizer_sha256="1" * 64, chat_template_sha256="2" * 64, stop_tokens=("</s>",))
GOOD_ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
OpenRegistry = Callable[..., Awaitable["Registry"]]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Registry:
    """A running registry and a client of it."""

    def __init__(self, app: RegistryApp, stub: Any) -> None:
        self.app = app
        self.stub = stub

    async def upload(self, content: bytes, *, path: str = "a", chunk: int = 1 << 20) -> FileEntry:
        entry = FileEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        await self.stub.UploadBlob(blob_parts(entry, content, chunk=chunk))
        return entry

    async def register(self, parent: str, kind: str, contents: dict[str, bytes], **parts: Any) -> versions_pb2.Version:
        """Uploads the contents and registers them; creates the parent when it is not there."""
        collection, _, id_ = parent.partition("/")
        if collection == "models":
            await self.stub.CreateModel(pb.CreateModelRequest(model_id=id_, request_id=parent))
        else:
            await self.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=id_, request_id=parent))
        files = tuple([await self.upload(content, path=path) for path, content in contents.items()])
        manifest = Manifest(kind=Kind(kind), files=files, **parts)
        return await self.create(parent, manifest)

    async def create(self, parent: str, manifest: Manifest, **more: Any) -> versions_pb2.Version:
        request = pb.CreateVersionRequest(parent=parent, manifest_json=manifest.canonical().decode(), **more)
        return await self.stub.CreateVersion(request)

    async def register_base(self, name: str = "qwen", salt: str = "") -> versions_pb2.Version:
        contents = {"config.json": b"{}" + salt.encode(), "model.safetensors": b"weights"}
        return await self.register(f"models/{name}", "base", contents, template=TEMPLATE)

    async def register_adapter(self, name: str, base: versions_pb2.Version, salt: str = "") -> versions_pb2.Version:
        return await self.register(
            f"models/{name}",
            "adapter",
            {"adapter_config.json": b"{}" + salt.encode(), "adapter_model.safetensors": b"weights"},
            base=BaseRef(model=base.name.split("/")[1], digest=base.digest),
        )


async def blob_parts(entry: FileEntry, content: bytes, *, chunk: int = 1 << 20) -> AsyncIterator[pb.UploadBlobRequest]:
    yield pb.UploadBlobRequest(blob=versions_pb2.Blob(sha256=entry.sha256, size_bytes=entry.size))
    for start in range(0, len(content), chunk):
        yield pb.UploadBlobRequest(chunk=content[start : start + chunk])


def manifest(salt: str = "", *, kind: str = "adapter", **parts: Any) -> Manifest:
    """A manifest of one file that no store holds."""
    file = FileEntry(path="a", size=1, sha256=hashlib.sha256(salt.encode()).hexdigest())
    return Manifest(kind=Kind(kind), files=(file,), **parts)


def rows(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Lets the other tasks run until the condition holds."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - a row in a database has no event
            await asyncio.sleep(0.002)


async def _stopped(server: grpc.aio.Server, earlier: set[asyncio.Task[Any]]) -> None:
    """Stops a server and waits for its cancelled handlers, which may be in the middle of a transaction."""
    await server.stop(0)
    if handlers := asyncio.all_tasks() - earlier - {asyncio.current_task()}:
        await asyncio.wait(handlers, timeout=5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database_url(databases: Databases) -> str:
    return databases.migrated("registry")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Database]:
    engine = await open_database(database_url, migrations="tuneloom_registry.migrations")
    yield engine
    await engine.dispose()


@pytest.fixture
def versions(engine: Database, clock: Clock) -> VersionStore:
    return VersionStore(engine, clock=clock)


@pytest.fixture
async def open_registry(tmp_path: Path) -> AsyncIterator[OpenRegistry]:
    """Starts a registry from its composition root. Keywords are settings; `client_token` is the client's."""
    async with AsyncExitStack() as stack:

        async def start(*, client_token: str | None = None, **settings: Any) -> Registry:
            chosen = {
                "port": 0,
                "database_url": f"sqlite+aiosqlite:///{tmp_path}/registry.db",
                "objects_url": f"file://{tmp_path}/objects",
                "work_dir": tmp_path / "work",
                "blob_cache_dir": tmp_path / "cache",
                **settings,
            }
            earlier = asyncio.all_tasks()
            app = await build(RegistrySettings(**chosen), stack)
            await app.server.start()
            stack.push_async_callback(_stopped, app.server, earlier)
            channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{app.port}", token=client_token))
            return Registry(app, RegistryServiceStub(channel))

        yield start


@pytest.fixture
async def registry(open_registry: OpenRegistry) -> Registry:
    return await open_registry()
