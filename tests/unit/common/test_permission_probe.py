"""Which servers are trusted with permissions: those that hold who has one to what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from tuneloom_common.objects import permissions
from tuneloom_common.objects.permissions import Permission
from tuneloom_common.objects.s3 import S3
from tuneloom_common.objects.settings import S3Options


class Seen:
    """A request that came with a permission."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.signed = parse_qs(urlsplit(handler.path).query)["X-Amz-SignedHeaders"][0].split(";")
        self.unsigned = {name for name in self.headers if name.startswith("x-amz-")} - set(self.signed)
        self.matches = self.headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()


@contextmanager
def serving(answer: Callable[[Seen], int]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A server that says so to permissions, and what it holds: a copy takes effect without a look at the body."""
    held: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = answer(Seen(self, body)) if "X-Amz-Signature" in self.path else 200
            if status == 200:
                held[urlsplit(self.path).path] = held.get(self.headers.get("x-amz-copy-source", ""), body)
            self._say(status)

        def do_DELETE(self) -> None:
            held.pop(urlsplit(self.path).path, None)
            self._say(204)

        def _say(self, status: int) -> None:
            self.send_response(status)
            if status != 204:
                self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", held
        finally:
            server.shutdown()
            thread.join()


def strict(seen: Seen) -> int:
    return 200 if seen.matches and not seen.unsigned else 403


def lacks_lists(seen: Seen) -> int:
    return 501 if "x-amz-acl" in seen.headers else strict(seen)


def takes_any_body(seen: Seen) -> int:
    return 403 if seen.unsigned else 200


def copies(seen: Seen) -> int:
    return 200 if "x-amz-copy-source" in seen.headers else strict(seen)


def copies_with_the_body(seen: Seen) -> int:
    return 200 if "x-amz-copy-source" in seen.headers and seen.matches else strict(seen)


def publishes(seen: Seen) -> int:
    return 200 if "x-amz-acl" in seen.headers and seen.matches else strict(seen)


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        (strict, True),
        (lacks_lists, True),
        (takes_any_body, False),
        (copies, False),
        (copies_with_the_body, False),
        (publishes, False),
    ],
)
async def test_a_server_is_tried_before_the_first_permission(
    tmp_path: Path, answer: Callable[[Seen], int], given: bool
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = secret\n")
    with serving(answer) as (endpoint, held):
        place = S3("s3://bucket/stores/a", S3Options(endpoint=endpoint, credentials_file=keys))
        permission = await place.permit_upload("blobs/x", sha256="0" * 64, size=1, seconds=60)
    assert (permission is not None) == given
    assert held == {}  # nothing of the trial is left


async def test_an_empty_file_is_uploaded_by_permission(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with serving(strict) as (endpoint, held):
        headers = {"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()}
        url = f"{endpoint}/x?X-Amz-SignedHeaders=host%3Bx-amz-content-sha256&X-Amz-Signature=s"
        await permissions.upload(Permission(url, headers, 60), empty)
    assert held == {"/x": b""}
