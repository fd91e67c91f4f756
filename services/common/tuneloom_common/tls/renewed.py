"""What is made of files, made again when they change."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from tuneloom_common.errors import TuneloomError

T = TypeVar("T")
Looks = tuple[tuple[int, int, int] | None, ...]
log = structlog.get_logger()


class Renewed(Generic[T]):
    """Raises what `make` raises once, at the start. Later what cannot be made, such as half of a new pair, is logged
    and the value of before stays. To be asked before every connection: looking costs a few microseconds."""

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        self._files = files
        self._make = make
        self._seen = _looks(files)
        self._value = make()

    def get(self) -> T:
        if (now := _looks(self._files)) != self._seen:
            self._renew(now)
        return self._value

    def _renew(self, now: Looks) -> None:
        try:
            made = self._make()
        except TuneloomError as error:
            self._seen = now
            log.warning(f"{error}; until that is mended the certificates of before are used")
            return
        if _looks(self._files) == now:  # else they were being written meanwhile
            self._seen, self._value = now, made
            log.info("certificates were renewed", files=[str(file) for file in self._files])


class RenewedContext(ssl.SSLContext):
    """Makes every connection with the newest context; those that exist keep theirs."""

    _newest: Callable[[], ssl.SSLContext]

    @classmethod
    def of(cls, renewed: Renewed[ssl.SSLContext]) -> RenewedContext:
        first = renewed.get()
        context = cls(first.protocol)
        context.check_hostname, context.verify_mode = first.check_hostname, first.verify_mode
        context._newest = renewed.get
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What event loops call for each connection."""
        return self._newest().wrap_bio(*args, **options)


def _looks(files: Sequence[Path]) -> Looks:
    return tuple(_look(file) for file in files)


def _look(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
