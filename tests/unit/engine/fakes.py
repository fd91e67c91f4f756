"""A registry on a loopback port that knows what was published to it, with files in a real object store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tuneloom.registry.v1 import registry_pb2_grpc
from tuneloom.registry.v1.registry_pb2 import ResolveVersionRequest
from tuneloom.registry.v1.versions_pb2 import ArtifactKind, Version
from tuneloom_common.errors import NotFound, TuneloomError
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Lora, Manifest
from tuneloom_common.names import EngineName
from tuneloom_common.objects import ObjectStore
from tuneloom_common.principals import Principals

TOKEN = "registry-token"


def safetensors(header: dict[str, Any], size: int) -> bytes:
    """A file with this header and `size` bytes of tensors."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


WEIGHTS = safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 8)


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """Answers ResolveVersion from `versions`, or with `failure` when that is set, once `hold` is."""

    def __init__(self, objects: ObjectStore, staging: Path) -> None:
        self.objects = objects
        self.staging = staging
        self.versions: dict[str, Version] = {}
        self.failure: TuneloomError | None = None
        self.asked: list[str] = []
        self.address = ""
        self.hold = asyncio.Event()
        self.hold.set()

    async def publish(
        self,
        model: str,
        kind: str,
        files: dict[str, bytes] | Path,
        *,
        base: str = "",
        rank: int = 8,
    ) -> str:
        """Stores the files and a version of them; returns its engine name. `base` is the base's."""
        directory = files if isinstance(files, Path) else self._write(model, files)
        manifest = Manifest(
            kind=Kind(kind),
            files=await self.objects.put_directory(directory),
            base=BaseRef(model=base.rpartition("--")[0], digest=self.versions[base].digest) if base else None,
            lora=Lora(r=rank, alpha=16, targets=("q_proj",)) if kind == Kind.ADAPTER else None,
        )
        await self.objects.put_manifest(manifest)
        name = str(EngineName.of(model, manifest.digest))
        self.versions[name] = Version(
            name=f"models/{model}/versions/1",
            digest=manifest.digest,
            kind=ArtifactKind.Value(f"ARTIFACT_KIND_{kind.upper()}"),
            manifest_json=manifest.canonical().decode(),
            engine_name=name,
        )
        return name

    async def publish_model(self, model: str, kind: str = Kind.BASE) -> str:
        config = json.dumps({"model_type": "tiny", "name": model}).encode()
        return await self.publish(model, kind, {"config.json": config, "model.safetensors": WEIGHTS})

    async def publish_adapter(self, model: str, *, base: str, rank: int = 8) -> str:
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": model.encode(), "README.md": b"hi"}
        return await self.publish(model, Kind.ADAPTER, files, base=base, rank=rank)

    async def ResolveVersion(self, request: ResolveVersionRequest, context: Any) -> Version:
        self.asked.append(request.reference)
        await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        if request.reference not in self.versions:
            raise NotFound(f"no version is called {request.reference}")
        return self.versions[request.reference]

    def _write(self, model: str, files: dict[str, bytes]) -> Path:
        directory = self.staging / model
        for path, content in files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        return directory


@asynccontextmanager
async def running_registry(root: Path) -> AsyncIterator[FakeRegistry]:
    """With its object store in `root/objects`."""
    objects = await ObjectStore(f"file://{root / 'objects'}").create()
    registry = FakeRegistry(objects, root / "staging")  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    server = await build_server(
        domain="registry.tuneloom",
        principals=Principals(admin_token=SecretStr(TOKEN)),
        services=[
            (
                "tuneloom.registry.v1.RegistryService",
                lambda server: registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server),
            )
        ],
    )
    registry.address = f"127.0.0.1:{bind(server, '127.0.0.1:0', setting='-')}"
    await server.start()
    yield registry
    await server.stop(None)
