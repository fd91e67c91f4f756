"""Files on their way into the object store: received beside it, held against what was announced, stored by hash."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from tuneloom_common.disks import REASON as DISK_FULL
from tuneloom_common.errors import InvalidArgument, ResourceExhausted, TuneloomError, Unavailable
from tuneloom_common.ids import check_sha256
from tuneloom_common.objects import ObjectStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Announced:
    """What a sender says is coming. `field` names it in errors."""

    sha256: str
    size: int
    field: str = "blob"


@dataclass(frozen=True, slots=True)
class Receiving:
    """`staging` is a local directory, `limit_setting` the variable that raises `max_bytes`. A sender that sends nothing
    for `idle_seconds` is let go."""

    objects: ObjectStore
    staging: Path
    max_bytes: int
    idle_seconds: float
    limit_setting: str

    async def take(self, announced: Announced, chunks: AsyncIterator[bytes]) -> None:
        """Stores the chunks, unless what was announced is stored and sound already."""
        check_sha256(announced.sha256, field=f"{announced.field}.sha256")
        if announced.size > self.max_bytes:
            field = f"{announced.field}.size_bytes"
            raise InvalidArgument(
                f"{field}: {announced.size} is more than the {self.max_bytes} bytes that are taken here; split the "
                f"file, or raise {self.limit_setting}",
                field=field,
            )
        if await self.objects.holds(announced.sha256, size=announced.size):
            return
        with tempfile.NamedTemporaryFile(dir=self.staging) as staged:
            await self._receive(announced, chunks, Path(staged.name))
            await self.objects.put_known_file(Path(staged.name), sha256=announced.sha256, size=announced.size)

    async def next(self, parts: AsyncIterator[T]) -> T | None:
        """The next part, None after the last; raises Unavailable when none comes in time."""
        try:
            async with asyncio.timeout(self.idle_seconds):
                return await anext(parts, None)
        except TimeoutError:
            raise Unavailable(
                f"the upload sent nothing for {self.idle_seconds:.0f} s and was ended; send it again", reason="TIMEOUT"
            ) from None

    async def _receive(self, announced: Announced, chunks: AsyncIterator[bytes], target: Path) -> None:
        """Writes the chunks to a file; raises InvalidArgument when they are not what was announced."""
        hasher, size = hashlib.sha256(), 0
        with _on_disk(target) as output:
            while (chunk := await self.next(chunks)) is not None:
                size += len(chunk)
                if size > announced.size:
                    break
                await asyncio.to_thread(_write, output, hasher, chunk)
        if size != announced.size or hasher.hexdigest() != announced.sha256:
            raise InvalidArgument(
                f"{announced.field}: got {size} bytes with another hash than announced ({announced.size} bytes, "
                f"{announced.sha256}); the file changed or the upload was cut, send it again",
                field=announced.field,
            )


@contextmanager
def _on_disk(target: Path) -> Iterator[BinaryIO]:
    """Errors of a write, or of the last one when the file is closed."""
    try:
        with target.open("wb") as output:
            yield output
    except TuneloomError:
        raise
    except OSError as error:
        raise ResourceExhausted(
            f"no space left for the upload ({error.strerror}); free some and upload again", reason=DISK_FULL
        ) from error


def _write(output: BinaryIO, hasher: hashlib._Hash, chunk: bytes) -> None:
    hasher.update(chunk)
    output.write(chunk)
