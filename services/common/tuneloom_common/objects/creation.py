"""Put-if-absent: by the store itself, or under a lock of the database's where the store cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, S3Store

Store = LocalStore | S3Store | MemoryStore
Lock = Callable[[str], AbstractAsyncContextManager[object]]
"""Held by one process at a time, for a name."""


class Create(Protocol):
    """Writes an object that is not there, in one request, and says whether it was this call that wrote it."""

    async def __call__(self, store: Store, name: str, data: bytes) -> bool: ...


async def by_store(store: Store, name: str, data: bytes) -> bool:
    """One PUT: some servers pass over the condition when a multipart upload is completed."""
    try:
        await obstore.put_async(store, name, data, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return False
    return True


def under(lock: Lock) -> Create:
    """For stores whose own condition lets several writers win."""

    async def create(store: Store, name: str, data: bytes) -> bool:
        async with lock(name):
            try:
                await obstore.head_async(store, name)
            except FileNotFoundError:
                await obstore.put_async(store, name, data, use_multipart=False)
                return True
            return False

    return create
