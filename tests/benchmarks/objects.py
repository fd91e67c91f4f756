"""Storing and fetching one file of 2 GB on S3, against boto3's transfer manager with hashlib.

`make bench NAME=objects`: five minutes, and Ceph's packages the first time (as root). Both sides store a file under its
sha256 and make it a file again whose sha256 is known to be right: boto3 by hashlib before `upload_file` and after
`download_file`. boto3 has the settings that were fastest here: ten threads, parts of 16 MiB, no checksums, and no
hash of the payload in its signatures. The server is a Ceph gateway on the same machine, so all share its processors.
Rounds take turns; medians. The last line is one JSON object: seconds, and `ratio` = peer / ours: above 1 ours is
faster.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tests.s3.buckets import make_bucket
from tests.s3.servers import Server, ceph
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects import ObjectStore
from tuneloom_common.objects.settings import S3Options

BYTES = int(os.environ.get("BYTES", 2_000_000_000))
ROUNDS = int(os.environ.get("ROUNDS", 5))
BUCKET = "benchmark"
MIB = 1 << 20


class Cost(NamedTuple):
    """Seconds; `cpu` is this process's, the server not counted."""

    wall: float
    cpu: float


class Ours:
    def __init__(self, server: Server, directory: Path) -> None:
        options = S3Options(endpoint=server.endpoint, credentials_file=server.one.write(directory / "keys"))
        self._store = ObjectStore(f"s3://{BUCKET}/ours", options)

    async def open(self) -> None:
        await self._store.create()

    async def upload(self, path: Path) -> FileEntry:
        return await self._store.put_file(path, name="file")

    async def download(self, entry: FileEntry, target: Path) -> None:
        await self._store.fetch(entry, target)


class Boto3:
    def __init__(self, server: Server) -> None:
        config = Config(
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=20,
        )
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=server.one.access,
            aws_secret_access_key=server.one.secret,
            config=config,
        )
        self._transfer = TransferConfig(
            multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, max_concurrency=10, io_chunksize=MIB
        )

    async def open(self) -> None: ...

    async def upload(self, path: Path) -> FileEntry:
        sha256 = _sha256(path)
        self._client.upload_file(str(path), BUCKET, f"boto3/{sha256}", Config=self._transfer)
        return FileEntry(path="file", size=path.stat().st_size, sha256=sha256)

    async def download(self, entry: FileEntry, target: Path) -> None:
        self._client.download_file(BUCKET, f"boto3/{entry.sha256}", str(target), Config=self._transfer)
        if _sha256(target) != entry.sha256:
            raise RuntimeError("boto3 fetched something else")

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=key)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


async def _measured(work: Callable[[], Awaitable[Any]]) -> tuple[Any, Cost]:
    os.sync()  # what was written before is not paid for here
    wall, cpu = time.perf_counter(), time.process_time()
    result = await work()
    return result, Cost(time.perf_counter() - wall, time.process_time() - cpu)


async def _round(side: Ours | Boto3, path: Path, directory: Path) -> dict[str, Cost]:
    entry, up = await _measured(lambda: side.upload(path))
    target = directory / "fetched"
    _, down = await _measured(lambda: side.download(entry, target))
    target.unlink()
    return {"upload": up, "download": down}


async def _compare(server: Server, directory: Path) -> dict[str, dict[str, list[Cost]]]:
    make_bucket(server, BUCKET)
    peer = Boto3(server)
    sides: dict[str, Ours | Boto3] = {"ours": Ours(server, directory), "peer": peer}
    costs: dict[str, dict[str, list[Cost]]] = {name: {"upload": [], "download": []} for name in sides}
    path = directory / "file"
    for number in range(ROUNDS + 1):  # the first is not counted
        _fill(path)
        for name in sorted(sides, reverse=bool(number % 2)):
            await sides[name].open()
            for use, cost in (await _round(sides[name], path, directory)).items():
                print(f"{name:5} {use:8} {cost.wall:6.1f} s, {cost.cpu:5.1f} s of processor", file=sys.stderr)
                if number:
                    costs[name][use].append(cost)
        sha256 = _sha256(path)
        for key in (f"ours/blobs/sha256/{sha256}", f"boto3/{sha256}"):
            peer.remove(key)
    return costs


def _fill(path: Path) -> None:
    """Another content each time: a blob that is there is not sent again."""
    with path.open("wb") as output:
        block = os.urandom(MIB)
        for start in range(0, BYTES, MIB):
            piece = start.to_bytes(8, "big") + block[8:]
            output.write(piece[: min(MIB, BYTES - start)])


def _median(costs: list[Cost]) -> dict[str, float]:
    return {field: round(statistics.median(getattr(cost, field) for cost in costs), 2) for field in Cost._fields}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with ceph.serving(directory / "ceph") as server:
            costs = asyncio.run(_compare(server, directory))
    result: dict[str, Any] = {
        "benchmark": "objects", "bytes": BYTES, "rounds": ROUNDS, "processors": os.cpu_count(),
        "server": "Ceph RADOS Gateway on this machine", "peer_is": f"boto3 {boto3.__version__}",
        "python": platform.python_version(),
    }  # fmt: skip
    for use in ("upload", "download"):
        ours, peer = _median(costs["ours"][use]), _median(costs["peer"][use])
        ratio = {field: round(peer[field] / ours[field], 2) for field in ours}
        result[use] = {"ours": ours, "peer": peer, "ratio": ratio}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
