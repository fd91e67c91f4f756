"""An object's bytes in order: as one stream, or in ranges that are asked for ahead and repeated one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import obstore

from tuneloom_common.objects.creation import Store
from tuneloom_common.objects.files import CHUNK_BYTES

RANGE_BYTES = 8 << 20
AHEAD = 4


async def stream(store: Store, name: str) -> AsyncIterator[bytes]:
    """In one request: for stores on this machine."""
    answer = await obstore.get_async(store, name)
    async for piece in answer.stream(min_chunk_size=CHUNK_BYTES):
        yield bytes(piece)


async def in_ranges(store: Store, name: str, *, range_bytes: int = RANGE_BYTES) -> AsyncIterator[bytes]:
    """For stores at the end of a line: no request takes long enough to be cut, and several are under way."""
    size = (await obstore.head_async(store, name))["size"]
    starts = iter(range(0, size, range_bytes))
    ahead: deque[asyncio.Task[bytes]] = deque()

    def ask() -> None:
        if (start := next(starts, None)) is not None:
            ahead.append(asyncio.create_task(_range(store, name, start, min(start + range_bytes, size))))

    try:
        for _ in range(AHEAD):
            ask()
        while ahead:
            piece = await ahead.popleft()
            ask()
            yield piece
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


async def _range(store: Store, name: str, start: int, end: int) -> bytes:
    return bytes(await obstore.get_range_async(store, name, start=start, end=end))
