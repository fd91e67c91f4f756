"""One cluster for all tests; what a test has killed is alive again in the next."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority import HERE, Authority
from tests.cluster.services import NAME, TOKEN, Backends, Cluster, running
from tests.databases import cluster as postgresql
from tests.s3.buckets import make_bucket
from tests.s3.servers import NotRun, ceph
from tuneloom_client.registry import RegistryClient
from tuneloom_client.trainer import TrainerClient
from tuneloom_client.versions import Version
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Manifest, Template

TEMPLATE = Template(tokenizer_sha256="1" * 64, chat_template_sha256="2" * 64, stop_tokens=("<|im_end|>",))
CONFIG = b'{"model_type": "qwen2", "max_position_embeddings": 4096}'
ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The store's URL and what reaching it takes: a directory, or with CLUSTER_OBJECTS=s3 a server of its own."""
    if os.environ.get("CLUSTER_OBJECTS") != "s3":
        yield f"file://{tmp_path_factory.mktemp('shared')}/objects", {}
        return
    try:
        with ceph.serving(tmp_path_factory.mktemp("ceph")) as server:
            make_bucket(server, "cluster")
            yield (
                "s3://cluster/objects",
                {
                    "AWS_ENDPOINT_URL": server.endpoint,
                    "AWS_ACCESS_KEY_ID": server.one.access,
                    "AWS_SECRET_ACCESS_KEY": server.one.secret,
                },
            )
    except NotRun as missing:
        pytest.skip(f"NOT RUN: {missing}")


@pytest.fixture(scope="session")
def backends(
    tmp_path_factory: pytest.TempPathFactory, postgres: postgresql.Cluster, objects: tuple[str, dict[str, str]]
) -> Backends:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    url, environment = objects
    return Backends(
        registry_database=postgres.url(postgres.new_database()),
        trainer_database=postgres.url(postgres.new_database()),
        objects=url,
        authority=authority,
        files=authority.issue("cluster", hosts=[NAME, *HERE]),
        environment=environment,
    )


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, backends: Backends) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster"), backends) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: Cluster) -> Iterator[Cluster]:
    yield started
    started.gate.unlink(missing_ok=True)
    for service in started.services:
        service.revive()


@dataclass(frozen=True, slots=True)
class Clients:
    """`registries` and `trainers` are clients of one each, `registry` and `trainer` of both."""

    registries: tuple[RegistryClient, RegistryClient]
    trainers: tuple[TrainerClient, TrainerClient]
    registry: RegistryClient
    trainer: TrainerClient


@pytest.fixture
async def clients(cluster: Cluster, backends: Backends) -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:

        async def registry(address: str) -> RegistryClient:
            return await stack.enter_async_context(RegistryClient.at(address, token=TOKEN, tls=backends.tls))

        async def trainer(address: str) -> TrainerClient:
            return await stack.enter_async_context(TrainerClient.at(address, token=TOKEN, tls=backends.tls))

        first, second = cluster.registries
        one, two = cluster.trainers
        yield Clients(
            (await registry(first.address), await registry(second.address)),
            (await trainer(one.address), await trainer(two.address)),
            await registry(cluster.registry),
            await trainer(cluster.trainer),
        )


class Library:
    """Puts artifacts into the registries: each file by one, the version by the other."""

    def __init__(self, clients: Clients, directory: Path) -> None:
        self._blobs, self._versions = clients.registries
        self._directory = directory

    async def base(self) -> Version:
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        weights = struct.pack("<Q", len(header)) + header + bytes(4)
        await self._versions.ensure_model("models/seed")
        files = {"config.json": CONFIG, "model.safetensors": weights}
        return await self._register("models/seed", Kind.BASE, files, template=TEMPLATE)

    async def rows(self) -> Version:
        await self._versions.ensure_dataset("datasets/chats")
        return await self._register("datasets/chats", Kind.DATASET, {"chats.jsonl": json.dumps(ROW).encode() + b"\n"})

    async def adapter(self, model: str, base: Version, *, salt: str = "") -> Version:
        await self._versions.ensure_model(f"models/{model}")
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": f"{model} {salt}".encode()}
        return await self._register(
            f"models/{model}", Kind.ADAPTER, files, base=BaseRef(model="seed", digest=base.digest)
        )

    async def checkpoint(self, model: str, base: Version) -> Version:
        await self._versions.ensure_model(f"models/{model}")
        files = {"adapter_config.json": b"{}", "weights.safetensors": model.encode()}
        reference = BaseRef(model="seed", digest=base.digest)
        return await self._register(f"models/{model}", Kind.CHECKPOINT, files, base=reference, template=TEMPLATE)

    async def _register(self, parent: str, kind: Kind, files: dict[str, bytes], **parts: object) -> Version:
        entries = []
        for name, content in files.items():
            path = self._directory / name
            path.write_bytes(content)
            entries.append(await self._blobs.upload(path))
        return await self._versions.register(parent, Manifest(kind=kind, files=tuple(entries), **parts))  # type: ignore[arg-type]


@pytest.fixture
def library(clients: Clients, tmp_path: Path) -> Library:
    return Library(clients, tmp_path)
