"""What can be wrong with a handshake, and what to do about each."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import StrEnum, auto

from tuneloom_common.tls.peers import SYSTEM, PeerTls

REASON = "HANDSHAKE_FAILED"


class Fault(StrEnum):
    EXPIRED = auto()
    NOT_YET_VALID = auto()
    AUTHORITY = auto()
    NAME = auto()
    NOT_TLS = auto()
    REFUSED = auto()
    """The other side ended it: it wants TLS, a certificate of ours, or another one."""


# X509_V_ERR_…
_CODES = {9: Fault.NOT_YET_VALID, 10: Fault.EXPIRED, 62: Fault.NAME, 64: Fault.NAME}
# gRPC tells of a handshake in one line for people; these are its TLS library's words in it.
_WORDS = {
    "certificate has expired": Fault.EXPIRED,
    "certificate is not yet valid": Fault.NOT_YET_VALID,
    "CERTIFICATE_VERIFY_FAILED": Fault.AUTHORITY,
    "Hostname Verification": Fault.NAME,
    "WRONG_VERSION_NUMBER": Fault.NOT_TLS,
}


def fault_told(line: str) -> Fault | None:
    """What gRPC's line about a failed connection means; None: it was not the handshake."""
    for word, fault in _WORDS.items():
        if word in line:
            return fault
    # "Socket closed" alone is a connection that was there before.
    return Fault.REFUSED if line.endswith(": Socket closed") else None


def fault_raised(error: BaseException, *, hung_up: bool = False) -> Fault | None:
    """What an HTTP client's error means; None: it was not the handshake. `hung_up`: over TLS, before any answer. That
    is how event loops tell of a server that did not accept our certificate, or our having none."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return _CODES.get(each.verify_code, Fault.AUTHORITY)
        if isinstance(each, ssl.SSLError):
            return Fault.NOT_TLS if each.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") else Fault.REFUSED
    return Fault.REFUSED if hung_up else None


def sentence(fault: Fault, what: str, *, tls: PeerTls | None, setting: str = "") -> str:
    """`what` is the service; `setting` begins the names of our settings about it where there is no `tls`."""
    setting = (tls.setting if tls else setting) or "TUNELOOM_…_"
    match fault:
        case Fault.EXPIRED:
            return f"the {what}'s certificate has expired; whoever runs it must put a new one in its place"
        case Fault.NOT_YET_VALID:
            return f"the {what}'s certificate is not valid yet; compare the clocks of both machines"
        case Fault.AUTHORITY:
            known = f"the authority {tls.ca}" if tls and tls.ca != SYSTEM else "an authority this machine trusts"
            return f"the {what}'s certificate is not of {known}; set {setting}CA to the one that signed it"
        case Fault.NAME:
            name = tls.server_name if tls and tls.server_name else "in its address"
            return (
                f"the {what}'s certificate is not for the name {name}; {_other_name(tls, setting)}, or give it another "
                "certificate"
            )
        case Fault.NOT_TLS:
            url = tls.url_setting if tls else ""
            plainly = f"call it by http:// in {url}" if url else f"unset {setting}CA"
            return f"the {what} does not speak TLS; give it a certificate (…_TLS_CERTIFICATE), or {plainly}"
        case Fault.REFUSED:
            return f"the {what} ended the connection at once; {_wish(tls, setting)}"


def _other_name(tls: PeerTls | None, setting: str) -> str:
    named = tls.name_setting if tls else None
    if named is None:
        named = f"{setting}SERVER_NAME"
    return f"set {named} to one it is for" if named else f"call it by one it is for in {tls and tls.url_setting}"


def _wish(tls: PeerTls | None, setting: str) -> str:
    if tls is None:
        return f"it may expect TLS: set {setting}CA to the authority of its certificate, or to 'system'"
    if tls.pair is None:
        return f"it may ask for a client's certificate: set {setting}CERTIFICATE and {setting}KEY"
    return (
        f"it may not accept {tls.pair.certificate}: see whether that has expired and is of the authority it asks for "
        "(…_TLS_CLIENT_CA)"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """What an error wraps, then itself: aiohttp keeps the TLS library's in attributes, and calls its own alike."""
    while error is not None:
        for name in ("certificate_error", "os_error"):
            if isinstance(inner := getattr(error, name, None), BaseException):
                yield inner
        yield error
        error = error.__cause__ or error.__context__
