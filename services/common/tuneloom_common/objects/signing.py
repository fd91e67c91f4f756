"""AWS Signature Version 4 for S3: requests signed by headers, and URLs that carry their own permission.

What obstore signs itself needs none of this; multipart uploads that are resumed, and permissions that are bound to the
hash of their content, it cannot express.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
CONTENT_HEADER = "x-amz-content-sha256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair, and the token of a temporary one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one region and moment."""

    credentials: Credentials
    region: str
    now: datetime

    def headers(
        self, method: str, url: str, *, content: str = UNSIGNED, headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """All headers of a request. `content` is the sha256 of its body, in hex."""
        signed = {
            **{name.lower(): value for name, value in (headers or {}).items()},
            "host": urlsplit(url).netloc,
            "x-amz-date": self._time,
            CONTENT_HEADER: content,
        }
        if self.credentials.session_token:
            signed["x-amz-security-token"] = self.credentials.session_token
        parts = urlsplit(url)
        signature = self._signature(_canonical(method, parts.path, parts.query, signed, content))
        signed["authorization"] = (
            f"{ALGORITHM} Credential={self.credentials.access_key_id}/{self._scope}, "
            f"SignedHeaders={_names(signed)}, Signature={signature}"
        )
        return signed

    def url(self, method: str, url: str, *, seconds: int, headers: Mapping[str, str] | None = None) -> str:
        """A URL that allows one kind of request for some seconds. Who uses it must send the headers as they are here;
        with the header of the content's hash, it is good for that content alone."""
        parts = urlsplit(url)
        signed = {**{name.lower(): value for name, value in (headers or {}).items()}, "host": parts.netloc}
        query = {
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{self.credentials.access_key_id}/{self._scope}",
            "X-Amz-Date": self._time,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": _names(signed),
        }
        if self.credentials.session_token:
            query["X-Amz-Security-Token"] = self.credentials.session_token
        text = encoded(query)
        canonical = _canonical(method, parts.path, text, signed, signed.get(CONTENT_HEADER, UNSIGNED))
        return f"{parts.scheme}://{parts.netloc}{parts.path}?{text}&X-Amz-Signature={self._signature(canonical)}"

    @property
    def _time(self) -> str:
        return self.now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")

    @property
    def _scope(self) -> str:
        return f"{self._time[:8]}/{self.region}/s3/aws4_request"

    def _signature(self, canonical: str) -> str:
        key = f"AWS4{self.credentials.secret_access_key}".encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        return hmac.digest(key, f"{ALGORITHM}\n{self._time}\n{self._scope}\n{hashed}".encode(), "sha256").hex()


def encoded(query: Mapping[str, str]) -> str:
    """A query as it is signed and sent."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))


def _canonical(method: str, path: str, query: str, headers: Mapping[str, str], content: str) -> str:
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
    return f"{method}\n{path}\n{query}\n{lines}\n{_names(headers)}\n{content}"


def _names(headers: Mapping[str, str]) -> str:
    return ";".join(sorted(headers))
