"""Which store belongs to which database: a new one is made only for a database that knows none.

Otherwise a service that is started while its disk is away would take the empty mount point for a new store, and tell
everybody that nothing is stored.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import structlog

from tuneloom_common.errors import FailedPrecondition

MARKER = ".tuneloom-store"
"""Lies in every store and holds its identity."""
log = structlog.get_logger()


def new_identity() -> str:
    return secrets.token_hex(8)


class Marked(Protocol):
    """The store, as far as this is concerned; see `places`."""

    expected: str | None

    async def identity(self) -> str | None: ...

    async def mark(self) -> str: ...

    async def used(self) -> bool: ...


class Remembered(Protocol):
    """What a database says of the store whose objects it names."""

    async def store_id(self) -> str | None: ...

    async def remember(self, store_id: str) -> str:
        """Returns what is remembered now: another process may have been faster."""

    async def names_objects(self) -> bool:
        """Whether it names objects that must be in a store."""


async def recognise(place: Marked, remembered: Remembered, *, url: str, setting: str) -> None:
    """Makes or marks the store where it is new, and raises FailedPrecondition where it is another database's.

    One that is away is waited for: every call says so until it is back. `setting` names the variable with the URL.
    """
    known, found = await remembered.store_id(), await place.identity()
    if known is None and (found is not None or await place.used() or not await remembered.names_objects()):
        found = await place.mark()
        known = await remembered.remember(found)
    if found is not None and known is not None and found != known:
        raise FailedPrecondition(
            f"{url} is the object store {found or 'without a name'}, and this database belongs to {known}; set "
            f"{setting} to the right place, or mount the right disk. A copy of a store is known by its {MARKER}: copy "
            "it too",
            reason="ANOTHER_STORE",
        )
    if found is None:
        log.warning(
            f"object store {url} is away: it has no {MARKER}, and the database names what is stored there; mount its "
            f"disk, or set {setting} to where the store is"
        )
    place.expected = known
