"""A full disk, however it is told: by the system, or in the words of a library that hides the system's error."""

from __future__ import annotations

import errno

from tuneloom_common.errors import ResourceExhausted

EXIT_DISK_FULL = 74
"""With this status a child leaves that found no space (sysexits: EX_IOERR): its work can be repeated."""
REASON = "DISK_FULL"
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left", "Disk quota", *(f"os error {number}" for number in _ERRNOS))


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no space, for now."""
    if isinstance(error, ResourceExhausted):
        return error.reason == REASON
    return getattr(error, "errno", None) in _ERRNOS or any(words in str(error) for words in _WORDS)
