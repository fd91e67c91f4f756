"""The S3 operations that obstore does not have: multipart uploads as steps, and permissions bound to a content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tuneloom_common.objects.credentials import CredentialSource
from tuneloom_common.objects.faults import Refusal, code_in
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.requests import Answer, Refused, Requests, Sign, Sink, Slice
from tuneloom_common.objects.signing import CONTENT_HEADER, UNSIGNED, Signer, encoded

LIST_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the server has."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A multipart upload that has not ended."""

    name: str
    upload: str
    time: datetime


class Bucket:
    """One bucket, by the address it has: `url` ends with its name or is its own host. Keys are below `prefix`."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        prefix: str,
        region: str,
        credentials: CredentialSource,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = url
        self._name = name
        self._prefix = prefix
        self._region = region
        self._credentials = credentials
        self._clock = clock

    def signer(self) -> Signer | None:
        """None where the key pair is not ours to know, as with a machine's role."""
        found = self._credentials.find()
        return Signer(found, self._region, self._clock()) if found else None

    def url(self, name: str = "", query: Mapping[str, str] | None = None) -> str:
        """Of an object, or of the bucket."""
        key = "/".join(part for part in (self._prefix, name) if part) if name else ""
        text = f"?{encoded(query)}" if query else ""
        return f"{self._url}{'/' + quote(key, safe='/-_.~') if key else '/'}{text}"

    def key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def source(self, name: str) -> str:
        """Of an object, as a copy names it."""
        return quote(f"/{self._name}/{self.key(name)}", safe="/-_.~")

    def permission(self, method: str, name: str, *, seconds: int, sha256: str = "") -> Permission | None:
        """URL and headers with which anybody may do this for some seconds; with a hash, with that content alone."""
        signer = self.signer()
        if signer is None:
            return None
        headers = {CONTENT_HEADER: sha256} if sha256 else {}
        return Permission(signer.url(method, self.url(name), seconds=seconds, headers=headers), headers, seconds)

    def get(self, requests: Requests, name: str, *, start: int, length: int, sink: Sink) -> None:
        requests.send(
            "GET", self._sign("GET", name, headers={"range": f"bytes={start}-{start + length - 1}"}), sink=sink
        )

    def peek(self, requests: Requests, name: str) -> Answer:
        """An object, or a 404 that says whether it is the bucket that is missing."""
        return requests.send("GET", self._sign("GET", name), ok=(404,))

    def put(self, requests: Requests, name: str, content: bytes) -> None:
        requests.send("PUT", self._sign("PUT", name, content=hashlib.sha256(content).hexdigest()), content)

    def delete(self, requests: Requests, name: str) -> None:
        requests.send("DELETE", self._sign("DELETE", name), ok=(404,))

    def size(self, requests: Requests, name: str) -> int | None:
        """None where the object is not there."""
        answer = requests.send("HEAD", self._sign("HEAD", name), ok=(404,))
        return int(answer.headers["content-length"]) if answer.status < 300 else None

    def uploads(self, requests: Requests, name: str) -> list[Begun]:
        """The multipart uploads that have not ended, the newest first, of objects whose names begin so."""
        query = {"uploads": "", "prefix": self.key(name), "max-uploads": str(LIST_LIMIT)}
        root = _xml(requests.send("GET", self._sign("GET", query=query)))
        below = len(self.key("")) if self._prefix else 0
        found = [
            Begun(_text(one, "Key")[below:], _text(one, "UploadId"), datetime.fromisoformat(_text(one, "Initiated")))
            for one in _all(root, "Upload")
        ]
        return sorted(found, key=lambda begun: begun.time, reverse=True)

    def begin(self, requests: Requests, name: str) -> str:
        return _text(_xml(requests.send("POST", self._sign("POST", name, {"uploads": ""}))), "UploadId")

    def parts(self, requests: Requests, name: str, upload: str) -> dict[int, Part]:
        """Those that the server has."""
        parts: dict[int, Part] = {}
        after = ""
        while True:
            query = {"uploadId": upload, "max-parts": str(LIST_LIMIT)} | (
                {"part-number-marker": after} if after else {}
            )
            root = _xml(requests.send("GET", self._sign("GET", name, query)))
            for one in _all(root, "Part"):
                number = int(_text(one, "PartNumber"))
                parts[number] = Part(number, int(_text(one, "Size")), _text(one, "ETag").strip('"'))
            after = _text(root, "NextPartNumberMarker")
            if _text(root, "IsTruncated") != "true" or not after:
                return parts

    def put_part(self, requests: Requests, name: str, upload: str, number: int, body: Slice) -> Part:
        query = {"uploadId": upload, "partNumber": str(number)}
        answer = requests.send("PUT", self._sign("PUT", name, query), body)
        return Part(number, body.length, answer.headers.get("etag", "").strip('"'))

    def complete(self, requests: Requests, name: str, upload: str, parts: list[Part]) -> None:
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;</ETag></Part>"
            for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        sign = self._sign("POST", name, {"uploadId": upload}, content=hashlib.sha256(body).hexdigest())
        answer = requests.send("POST", sign, body)
        if code := code_in(answer.body.decode("utf-8", "replace")):  # S3 may fail after it said 200
            raise Refused(answer.status, Refusal(code))

    def abort(self, requests: Requests, name: str, upload: str) -> None:
        requests.send("DELETE", self._sign("DELETE", name, {"uploadId": upload}), ok=(404,))

    def _sign(
        self,
        method: str,
        name: str = "",
        query: Mapping[str, str] | None = None,
        *,
        content: str = UNSIGNED,
        headers: Mapping[str, str] | None = None,
    ) -> Sign:
        def sign() -> tuple[str, Mapping[str, str]]:
            signer = self.signer()
            if signer is None:
                raise Refused(0, Refusal("NoCredentials"))
            url = self.url(name, query)
            return url, signer.headers(method, url, content=content, headers=headers)

        return sign


def _xml(answer: Answer) -> ElementTree.Element:
    """Of a server the operator chose; expat refuses entities that grow without bound."""
    return ElementTree.fromstring(answer.body)  # noqa: S314


def _all(root: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [child for child in root if child.tag.rpartition("}")[2] == tag]


def _text(root: ElementTree.Element, tag: str) -> str:
    found = _all(root, tag)
    return (found[0].text or "") if found else ""
