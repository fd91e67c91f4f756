"""What storage libraries, servers and the system raise, as errors of ours that name the setting and the next step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from tuneloom_common.disks import REASON as DISK_FULL
from tuneloom_common.disks import is_full
from tuneloom_common.errors import ResourceExhausted, TuneloomError, Unavailable
from tuneloom_common.objects.settings import S3Options

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d+)")
_BODYLESS = {"401": "AccessDenied", "403": "AccessDenied"}
SKEW = timedelta(minutes=15)
WRONG = frozenset(f"OBJECTS_{what}" for what in ("CREDENTIALS", "CLOCK", "BUCKET", "ACCESS", "REGION", "CERTIFICATE"))
"""Reasons that do not go away by waiting."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an S3 server said no with. `code` is S3's, or the HTTP status where it gave none."""

    code: str
    date: str = ""
    """The server's clock, as it told it."""


def translated(error: Exception, *, url: str, options: S3Options | None = None) -> Exception:
    """One of ours; `url` names the store."""
    if isinstance(error, TuneloomError):
        return error
    text = str(error)
    if is_full(error):
        return ResourceExhausted(
            f"no space left in {url}; free some space and repeat the call, nothing stored was lost",
            reason=DISK_FULL,
        )
    if options is not None and url.startswith("s3://"):
        return refused(_refusal(text), url=url, options=options)
    return Unavailable(f"object store {url} failed: {text.splitlines()[0][:200] if text else type(error).__name__}")


def refused(refusal: Refusal, *, url: str, options: S3Options, now: datetime | None = None) -> Unavailable:
    """All of them are UNAVAILABLE: no caller of ours can mend them, and work waits until an operator has."""
    code, where = refusal.code, f"object store {url}"
    bucket = url.removeprefix("s3://").partition("/")[0]
    endpoint = options.found_endpoint or "AWS"
    key = f"{options.setting('CREDENTIALS_FILE')} (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "NoCredentials"):
        why = {
            "InvalidAccessKeyId": "does not know the access key",
            "SignatureDoesNotMatch": "says the secret key is wrong",
            "NoCredentials": "needs a key and none was found",
        }.get(code, f"refuses the session token ({code})")
        return Unavailable(f"{where}: {endpoint} {why}; set {key}", reason="OBJECTS_CREDENTIALS")
    if code == "RequestTimeTooSkewed":
        apart = _skew(refusal, now or datetime.now(UTC))
        return Unavailable(
            f"{where}: {apart}; set this machine's clock, or the server's, for example by NTP",
            reason="OBJECTS_CLOCK",
        )
    if code == "NoSuchBucket":
        return Unavailable(
            f"{where}: {endpoint} has no bucket {bucket!r}, or it belongs to another key; create it, or set "
            f"{options.setting('URL')} or {options.setting('ENDPOINT')}",
            reason="OBJECTS_BUCKET",
        )
    if code in ("AccessDenied", "AllAccessDisabled"):
        return Unavailable(
            f"{where}: the key may not do this; allow it to list the bucket and to get, put and delete its objects, "
            f"or set another one with {key}",
            reason="OBJECTS_ACCESS",
        )
    if code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "301", "307"):
        return Unavailable(
            f"{where}: {endpoint} says that {options.found_region} is the wrong region or address ({code}); set "
            f"{options.setting('REGION')} or {options.setting('ENDPOINT')}",
            reason="OBJECTS_REGION",
        )
    if code == "UntrustedCertificate":
        return Unavailable(
            f"{where}: the certificate of {endpoint} is not trusted; set {options.setting('CA_FILE')} to who signed "
            f"it, or {options.setting('ENDPOINT')} to the name in it",
            reason="OBJECTS_CERTIFICATE",
        )
    if code == "Unreachable":
        return Unavailable(
            f"{where}: {endpoint} does not answer; see that it runs and that {options.setting('ENDPOINT')} is right",
            reason="OBJECTS_UNREACHABLE",
        )
    return Unavailable(
        f"{where}: {endpoint} answers {code}, also when asked again; see the server's own log, or try later",
        reason="OBJECTS_FAILING",
    )


def code_in(body: str) -> str:
    """S3's code in the body of an error."""
    found = _CODE.search(body)
    return found[1] if found else ""


def _refusal(text: str) -> Refusal:
    """What obstore tells in words."""
    status = found[1] if (found := _STATUS.search(text)) else ""
    if code := code_in(text) or _BODYLESS.get(status) or status:
        return Refusal(code)
    if "credentials" in text.lower() or "169.254.169.254" in text:
        return Refusal("NoCredentials")
    if "InvalidCertificate" in text or "invalid peer certificate" in text:
        return Refusal("UntrustedCertificate")
    if "HTTP error" in text or "error sending request" in text or "timed out" in text.lower():
        return Refusal("Unreachable")
    return Refusal(text.splitlines()[0][:120] if text else "nothing")


def _skew(refusal: Refusal, now: datetime) -> str:
    try:
        apart = now - parsedate_to_datetime(refusal.date)
    except ValueError:
        return "this machine's clock and the server's are more than 15 minutes apart"
    if abs(apart) < SKEW:
        return "the server says that the clocks are more than 15 minutes apart"
    word = "ahead of" if apart > timedelta() else "behind"
    return f"this machine's clock is {abs(apart).total_seconds() / 60:.0f} minutes {word} the server's"
