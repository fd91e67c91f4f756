"""What storage libraries and the system raise, as errors of ours."""

from __future__ import annotations

from tuneloom_common.disks import REASON as DISK_FULL
from tuneloom_common.disks import is_full
from tuneloom_common.errors import ResourceExhausted, TuneloomError, Unavailable


def translated(error: Exception, *, url: str) -> Exception:
    """One of ours; `url` names the store."""
    if isinstance(error, TuneloomError):
        return error
    text = str(error)
    if is_full(error):
        return ResourceExhausted(
            f"no space left in {url}; free some space and repeat the call, nothing stored was lost",
            reason=DISK_FULL,
        )
    return Unavailable(f"object store {url} failed: {text.splitlines()[0][:200]}")
