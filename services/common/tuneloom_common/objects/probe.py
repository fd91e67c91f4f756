"""Whether a store can be trusted, seen by trying: with racing writers, one of whom may win, and with a false hash."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from urllib.parse import urlsplit

import obstore

from tuneloom_common.errors import FailedPrecondition
from tuneloom_common.objects.bucket import Bucket
from tuneloom_common.objects.creation import Store, by_store
from tuneloom_common.objects.requests import Refused, Requests

ROUNDS = 12
WRITERS = 16
"""A server that lets several win does so in every second race; twelve in a row miss it one time in some thousands."""


async def require_atomic_create(store: Store, *, url: str, setting: str) -> None:
    """Raises FailedPrecondition when more or less than one of the writers of a new object is told that it won."""
    for _ in range(ROUNDS):
        name = f"probe/{secrets.token_hex(8)}"
        contents = [secrets.token_bytes(16) for _ in range(WRITERS)]
        try:
            won = await asyncio.gather(*(by_store(store, name, content) for content in contents))
            answer = await obstore.get_async(store, name)
            stored = bytes(await answer.bytes_async())
        finally:
            await _remove(store, name)
        winners = [content for content, first in zip(contents, won, strict=True) if first]
        if winners != [stored]:
            raise FailedPrecondition(
                f"object store {url} is not safe for several writers: {len(winners)} of {WRITERS} were told that they "
                f"had created the same object. Use a store whose If-None-Match is atomic, or set {setting}=database: "
                "then writers take turns by a lock of the registry's database",
                reason="STORE_NOT_ATOMIC",
            )


def binds_content(bucket: Bucket, requests: Requests) -> bool:
    """Whether a permission for one content really refuses another. Blocks."""
    name = f"probe/{secrets.token_hex(8)}"
    permission = bucket.permission("PUT", name, seconds=60, sha256=hashlib.sha256(b"this").hexdigest())
    if permission is None:
        return False
    headers = {"host": urlsplit(permission.url).netloc, **permission.headers}
    try:
        requests.send("PUT", lambda: (permission.url, headers), b"that")
    except Refused as refused:
        if refused.status >= 500 or not refused.status:
            raise
        return True
    bucket.delete(requests, name)
    return False


async def _remove(store: Store, name: str) -> None:
    try:
        await obstore.delete_async(store, name)
    except FileNotFoundError:
        pass
