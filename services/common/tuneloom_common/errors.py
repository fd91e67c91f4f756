"""One root, a handful of leaves. Raised in the domain, translated once per edge (gRPC, HTTP, terminal).

Every message names the thing and the next step; `reason` is the same for machines, `field` the argument at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class TuneloomError(Exception):
    """Root of all errors that are meant for a caller."""

    code: ClassVar[str] = "INTERNAL"
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.metadata = dict(metadata or {})


class InvalidArgument(TuneloomError, ValueError):
    """The request can never succeed as it is."""

    code = "INVALID_ARGUMENT"
    default_reason = "INVALID_ARGUMENT"


class NotFound(TuneloomError, LookupError):
    """The named thing does not exist."""

    code = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class AlreadyExists(TuneloomError):
    """The name is taken by something else."""

    code = "ALREADY_EXISTS"
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(TuneloomError, RuntimeError):
    """The thing is not in the state the call needs."""

    code = "FAILED_PRECONDITION"
    default_reason = "FAILED_PRECONDITION"


class Aborted(TuneloomError, RuntimeError):
    """Somebody else changed it first; read again and decide anew."""

    code = "ABORTED"
    default_reason = "CONFLICT"


class Unauthenticated(TuneloomError, PermissionError):
    """The key is missing or wrong."""

    code = "UNAUTHENTICATED"
    default_reason = "INVALID_KEY"


class PermissionDenied(TuneloomError, PermissionError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"
    default_reason = "MISSING_SCOPE"


class ResourceExhausted(TuneloomError, OSError):
    """Disk, memory or a configured limit is used up."""

    code = "RESOURCE_EXHAUSTED"
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(TuneloomError, ConnectionError):
    """A part this call needs does not answer; the same call may succeed later."""

    code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"


class DataLoss(TuneloomError, OSError):
    """Stored bytes are not what their hash says."""

    code = "DATA_LOSS"
    default_reason = "DIGEST_MISMATCH"


BY_CODE: Mapping[str, type[TuneloomError]] = {
    leaf.code: leaf
    for leaf in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        Unauthenticated,
        PermissionDenied,
        ResourceExhausted,
        Unavailable,
        DataLoss,
    )
}
