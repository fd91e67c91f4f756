"""A database that is away, busy or full, or that a value does not fit into, in words for callers. Mistakes of ours
stay the errors they are.

Callers get a sentence without addresses or statements; the driver's own words go to the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tuneloom_common.errors import InvalidArgument, Unavailable
from tuneloom_common.patience import error_line

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Passing:
    """What may be over in a moment, and is then worth the same call again."""

    reason: str
    told: str


AWAY = Passing("DATABASE_AWAY", "the service's database does not answer; try again in a moment")
BUSY = Passing("DATABASE_BUSY", "the service's database is busy, something in it stays locked; try again in a moment")
FULL = Passing("DATABASE_FULL", "the disk of the service's database is full; make room there, then try again")
CROWDED = Passing("DATABASE_BUSY", "every connection to the service's database is in use; try again in a moment")

# https://www.sqlite.org/rescode.html: BUSY, LOCKED, IOERR, FULL, CANTOPEN, PROTOCOL
SQLITE = {5: BUSY, 6: BUSY, 10: AWAY, 13: FULL, 14: AWAY, 15: BUSY}
# PostgreSQL's appendix A: a whole class by its first two characters
SQLSTATES = {
    "08": AWAY,  # connection exceptions
    "53": CROWDED,  # insufficient resources
    "53100": FULL,
    "57P": AWAY,  # shut down, crashed, starting up
    "57014": BUSY,  # a statement took too long
    "55P03": BUSY,  # a lock was not had in time
    "40": BUSY,  # serialization failures and deadlocks
    "25P03": AWAY,  # this process stood still within a transaction for too long
}


@contextmanager
def told_to_callers() -> Iterator[None]:
    """Raises what may be over in a moment as Unavailable, and what can never be stored as InvalidArgument."""
    try:
        yield
    except DataError as error:
        raise InvalidArgument(f"a value of this request cannot be stored: {error_line(error)}") from error
    except SQLAlchemyError as error:
        passing = _passing(error)
        if passing is None:
            raise
        log.warning(f"{passing.told.partition(';')[0]}: {error_line(error)}", reason=passing.reason)
        raise Unavailable(passing.told, reason=passing.reason) from error


def _passing(error: SQLAlchemyError) -> Passing | None:
    if isinstance(error, PoolTimeout):
        return CROWDED
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return SQLITE.get(code & 0xFF)  # without its extension
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return next((SQLSTATES[state[:n]] for n in (5, 3, 2) if state[:n] in SQLSTATES), None)
    lost = error.connection_invalidated or (isinstance(error, OperationalError) and hasattr(error.orig, "sqlstate"))
    return AWAY if lost else None  # no connection, so no state either
