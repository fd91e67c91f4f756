"""A whole build: a registry of its own, its runner, its child process, its object store.

What a user waits for: the base is hashed and linked, merged, proved, hashed again, stored, registered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.merging import measured
from tuneloom.registry.v1 import builds_pb2, registry_pb2
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tuneloom_common.grpc import open_channel
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Manifest, Template
from tuneloom_common.objects import ObjectStore
from tuneloom_data.templates import read_template

PORT = 18436
TOKEN = "a-token-of-this-benchmark"
POLL_SECONDS = 0.5
START_SECONDS = 60
# A random model in bf16 is full of near-ties, which no honest merge keeps: the gate is not what is measured.
MIN_GREEDY_AGREEMENT = 0.01


@dataclass(frozen=True, slots=True)
class Registry:
    process: asyncio.subprocess.Process
    stub: Any
    objects: ObjectStore
    measured: Path


@asynccontextmanager
async def registry(work: Path) -> AsyncIterator[Registry]:
    """The service as `tuneloom up` runs it, but for the child's command, which also measures itself."""
    objects, log, figures = f"file://{work}/objects", work / "registry.log", work / "children.jsonl"
    child = [sys.executable, "-P", measured.__file__, str(figures), "tuneloom_registry.transforms"]
    settings = {
        "PORT": str(PORT),
        "TOKEN": TOKEN,
        "DATABASE_URL": f"sqlite+aiosqlite:///{work}/registry.db",
        "OBJECTS_URL": objects,
        "WORK_DIR": str(work / "registry"),
        "BUILD_COMMAND": json.dumps(child),
    }
    environment = {**os.environ, **{f"TUNELOOM_REGISTRY_{name}": value for name, value in settings.items()}}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tuneloom_registry"]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        async with open_channel(f"127.0.0.1:{PORT}", token=TOKEN) as channel:
            async with asyncio.timeout(START_SECONDS):
                await channel.channel_ready()
            yield Registry(process, RegistryServiceStub(channel), ObjectStore(objects), figures)
    except BaseException:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        await process.wait()


async def add_base(to: Registry, name: str, directory: Path) -> BaseRef:
    frozen = read_template(directory)
    template = Template(
        tokenizer_sha256=frozen.tokenizer_sha256,
        chat_template_sha256=frozen.chat_template_sha256,
        stop_tokens=frozen.stop_tokens,
    )
    files = await to.objects.put_directory(directory)
    version = await _add(to, name, Manifest(kind=Kind.BASE, files=files, template=template))
    return BaseRef(model=name, digest=version.digest)


async def add_adapter(to: Registry, name: str, directory: Path, base: BaseRef) -> str:
    """The version's name."""
    files = await to.objects.put_directory(directory)
    version = await _add(to, name, Manifest(kind=Kind.ADAPTER, files=files, base=base))
    return str(version.name)


async def _add(to: Registry, name: str, manifest: Manifest) -> Any:
    await to.stub.CreateModel(registry_pb2.CreateModelRequest(model_id=name))
    request = registry_pb2.CreateVersionRequest(parent=f"models/{name}", manifest_json=manifest.canonical().decode())
    return await to.stub.CreateVersion(request)


async def merge(to: Registry, adapter: str) -> dict[str, float]:
    """Requests the build and waits for it; child and service are measured apart."""
    service = _cpu_seconds(to.process.pid)
    spec = builds_pb2.MergeSpec(adapter=adapter, min_greedy_agreement=MIN_GREEDY_AGREEMENT)
    wanted = builds_pb2.Build(merge=spec, target_model=adapter.partition("/versions/")[0])
    build = await to.stub.CreateBuild(registry_pb2.CreateBuildRequest(build=wanted))
    while not build.HasField("end_time"):
        await asyncio.sleep(POLL_SECONDS)
        build = await to.stub.GetBuild(registry_pb2.GetBuildRequest(name=build.name))
    if not build.result_version:
        raise SystemExit(f"the build failed: {build.error}")
    child = json.loads(to.measured.read_text().splitlines()[-1])
    service = _cpu_seconds(to.process.pid) - service
    return {
        "seconds": (build.end_time.ToDatetime() - build.create_time.ToDatetime()).total_seconds(),
        "child_seconds": child["process_seconds"],
        "cpu_seconds": child["cpu_seconds"] + service,
        "service_cpu_seconds": service,
        "peak_memory_mib": child["peak_memory_mib"],
        "service_peak_memory_mib": measured.high_water_mib(to.process.pid),
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
