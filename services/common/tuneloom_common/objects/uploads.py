"""A large file on its way into a bucket: in parts, several at a time, going on with those that an interrupted upload
left."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tuneloom_common.objects.bucket import Bucket, Part
from tuneloom_common.objects.progress import OnBytes
from tuneloom_common.objects.requests import Refused, Requests, Slice

PART_BYTES = 16 << 20
MOST_PARTS = 9_000
CONCURRENCY = 10
TRIES = 3


@dataclass(frozen=True, slots=True)
class FileUpload:
    """Parts are sent by the kernel and not hashed once more: whoever reads the object holds it against its name."""

    bucket: Bucket
    name: str
    path: Path
    size: int
    on_bytes: OnBytes = lambda count: None
    part_bytes: int = PART_BYTES

    def run(self, requests: Requests) -> None:
        """Returns when the object is there. Blocks; raises Refused or Stopped."""
        with self.path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != self.size:
                raise OSError(f"{self.path} changed while it was uploaded")
            self._in_parts(requests, file)

    def _in_parts(self, requests: Requests, file: BinaryIO) -> None:
        for tries in range(TRIES, 0, -1):
            try:
                upload, there = self._find(requests, file)
                self.bucket.complete(requests, self.name, upload, self._send(requests, file, upload, there))
                return
            except Refused as refused:
                # Somebody who uploads the same content has ended it, or a cleaner has.
                if refused.refusal.code != "NoSuchUpload" or tries == 1:
                    raise
                if self._is_there(requests):
                    return

    def _find(self, requests: Requests, file: BinaryIO) -> tuple[str, dict[int, Part]]:
        """An upload to go on with and its sound parts, or a new one."""
        for begun in self.bucket.uploads(requests, self.name)[:1]:
            upload = begun.upload
            parts = self.bucket.parts(requests, self.name, upload)
            sound = {number: part for number, part in parts.items() if self._is_sound(file, part)}
            if len(sound) == len(parts):
                self.on_bytes(sum(part.size for part in sound.values()))
                return upload, sound
        return self.bucket.begin(requests, self.name), {}

    def _is_sound(self, file: BinaryIO, part: Part) -> bool:
        """Whether a part that the server has is what we would send: its ETag is an MD5, unless the server encrypts."""
        piece = self._slice(file, part.number)
        if part.size != piece.length or len(part.etag) != 32:
            return False
        return _md5(piece) == part.etag

    def _send(self, requests: Requests, file: BinaryIO, upload: str, there: dict[int, Part]) -> list[Part]:
        def send(number: int) -> Part:
            if part := there.get(number):
                return part
            piece = self._slice(file, number)
            part = self.bucket.put_part(requests, self.name, upload, number, piece)
            self.on_bytes(part.size)
            return part

        count = -(-self.size // self._part_bytes)
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="upload") as pool:
            sending = [pool.submit(send, number) for number in range(1, count + 1)]
            try:
                return [one.result() for one in sending]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _is_there(self, requests: Requests) -> bool:
        return self.bucket.size(requests, self.name) == self.size

    @property
    def _part_bytes(self) -> int:
        """The same for everybody who uploads this content, so that anybody can go on."""
        least = -(-self.size // MOST_PARTS)
        return max(self.part_bytes, -(-least // (1 << 20)) << 20)

    def _slice(self, file: BinaryIO, number: int) -> Slice:
        start = (number - 1) * self._part_bytes
        return Slice(file, start, max(0, min(self._part_bytes, self.size - start)))


def _md5(piece: Slice) -> str:
    hasher = hashlib.md5(usedforsecurity=False)
    at, end = piece.start, piece.start + piece.length
    while at < end and (data := os.pread(piece.file.fileno(), min(1 << 20, end - at), at)):
        hasher.update(data)
        at += len(data)
    return hasher.hexdigest()
