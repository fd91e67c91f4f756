"""Certificates, keys and authorities in files, read as wholes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from tuneloom_common.errors import FailedPrecondition

OTHERS = 0o077
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, followed by its chain, and its private key, as PEM."""

    certificate: Path
    key: Path

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises FailedPrecondition naming the file at fault; warns of a key that others may read."""
        for file in (self.certificate, self.key):
            read(file)
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _bad(f"{self.certificate} and {self.key} do not belong together; put both in place") from None
            raise _bad(
                f"{self.certificate} and {self.key} are not a whole certificate with its unencrypted key, as PEM "
                f"({error.reason or type(error).__name__})"
            ) from None
        except OSError as error:  # replaced at this moment
            raise _bad(f"{self.certificate} and {self.key} cannot be read ({error.strerror})") from None
        if _mode(self.key) & OTHERS:
            log.warning(f"others on this machine may read the private key {self.key}; run: chmod 600 {self.key}")


def load_authority(context: ssl.SSLContext, path: Path) -> None:
    """Trusts the authorities in a file; raises FailedPrecondition naming it."""
    read(path)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        problem = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise _bad(f"{path} holds no whole authority as PEM ({problem or type(error).__name__})") from None


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _bad(f"{path} cannot be read ({error.strerror})") from None


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:  # replaced at this moment; the next look sees the new one
        return 0


def _bad(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason="BAD_CERTIFICATE")
