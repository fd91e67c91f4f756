"""Permissions of somebody who holds no key of the store: one file, one way, a short time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tuneloom_common.errors import DataLoss, Unavailable
from tuneloom_common.manifests import FileEntry
from tuneloom_common.objects.downloads import FileDownload
from tuneloom_common.objects.requests import Patience, Refused, Requests, Sink, Slice, in_thread
from tuneloom_common.objects.settings import S3Options

LARGEST_BYTES = 5 << 30
"""What S3 takes in one request; larger files go the other way."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Permission:
    """A URL that is its own permission, with the headers that it is bound to. Whoever reads it may use it."""

    url: str = field(repr=False)
    headers: Mapping[str, str]
    seconds: int


async def upload(permission: Permission, path: Path, *, patience: Patience | None = None) -> None:
    """Stores a file. Raises Unavailable when the store is out of reach or refuses."""

    def work(requests: Requests) -> None:
        with path.open("rb", buffering=0) as file:
            body = Slice(file, 0, os.fstat(file.fileno()).st_size)
            headers = {"host": urlsplit(permission.url).netloc, **permission.headers}
            requests.send("PUT", lambda: (permission.url, headers), body)

    await _run(work, patience)


async def download(permission: Permission, file: FileEntry, target: Path, *, patience: Patience | None = None) -> None:
    """Makes a blob a file that must not exist yet, verified; goes on with what an interrupted download left."""

    def get(requests: Requests, start: int, length: int, sink: Sink) -> None:
        headers = {"host": urlsplit(permission.url).netloc, "range": f"bytes={start}-{start + length - 1}"}
        requests.send("GET", lambda: (permission.url, {**permission.headers, **headers}), sink=sink)

    if not file.size:
        target.touch(exist_ok=False)
        return
    if not await _run(FileDownload(get, target, file.sha256, file.size).run, patience):
        raise DataLoss(f"{file.path}: blob {file.sha256} is damaged in the object store; upload the file again")


async def _run(work: Callable[[Requests], T], patience: Patience | None) -> T:
    try:
        return await in_thread(work, Requests(ca_file=S3Options().found_ca_file, patience=patience))
    except Refused as error:  # not the URL: it is a secret
        raise Unavailable(f"the object store does not take what it was permitted ({error.refusal.code})") from None
