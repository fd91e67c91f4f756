"""A proxy before an S3 server that does harm when it is told to, and counts what passes."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.authority import Files

Harm = Literal["503", "500", "drop", "cut"] | None
"""An answer in the server's stead, no answer at all, or half of one."""
HOP_BY_HOP = ("connection", "transfer-encoding")
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"


@dataclass
class Proxy:
    """`harm` says what happens to a request, by method and path with query and range."""

    endpoint: str
    harm: Callable[[str, str], Harm] = lambda method, path: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)
    """What the server has answered."""
    strict: bool = False
    """As AWS does, and Ceph does not: a permission refuses `x-amz-` headers that it does not name."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, pattern: str = "") -> int:
        """Requests that came, harmed or not."""
        return sum(one == method and re.search(pattern, path) is not None for one, path in self.seen)

    def forget(self) -> None:
        self.seen.clear()
        self.passed.clear()
        self.harm = lambda method, path: None


@contextmanager
def proxying(endpoint: str, *, tls: Files | None = None) -> Iterator[Proxy]:
    """With a certificate, it is spoken to over TLS."""
    upstream = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = f"{self.path} {self.headers.get('range', '')}"
            with proxy.lock:
                proxy.seen.append((self.command, asked))
                harm = proxy.harm(self.command, asked)
            if harm == "drop":
                self.close_connection = True
            elif proxy.strict and _unsigned(self.path, self.headers.keys()):
                self._answer(403, {"content-length": str(len(DENIED))}, DENIED)
            elif harm in ("500", "503"):
                self._answer(int(harm), {"content-length": str(len(SLOW_DOWN))}, SLOW_DOWN)
            else:
                self._forward(body, cut=harm == "cut")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815

        def _forward(self, body: bytes, *, cut: bool) -> None:
            connection = http.client.HTTPConnection(upstream, timeout=30)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                with connection.getresponse() as response:
                    content = response.read()
                    with proxy.lock:
                        proxy.passed.append((self.command, self.path))
                    kept = {
                        k: v for k, v in response.getheaders() if k.lower() not in ("connection", "transfer-encoding")
                    }
                    if self.command != "HEAD":
                        kept["Content-Length"] = str(len(content))
                    self._answer(response.status, kept, content[: len(content) // 2] if cut else content)
                    self.close_connection = cut
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            with suppress(OSError):
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        proxy = Proxy(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def _unsigned(path: str, names: Iterable[str]) -> set[str]:
    """Headers with a meaning that a permission in the query does not name."""
    signed = parse_qs(urlsplit(path).query).get("X-Amz-SignedHeaders")
    meant = {name.lower() for name in names if name.lower().startswith("x-amz-")}
    return meant - set(signed[0].split(";")) if signed else set()
