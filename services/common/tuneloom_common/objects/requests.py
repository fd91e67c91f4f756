"""Single requests to an S3 server from a thread: parts of files sent without passing through Python, ranges read into
files, each repeated with growing, random pauses while repeating may help."""

from __future__ import annotations

import asyncio
import http.client
import random
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from tuneloom_common.objects.faults import Refusal, code_in

SOCKET_SECONDS = 30.0
PIECE_BYTES = 1 << 20
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIED_CODES = frozenset({"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted"})
NETWORK = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses are random below a bound that doubles from `first_seconds` to `most_seconds`."""

    tries: int = 6
    first_seconds: float = 0.25
    most_seconds: float = 8.0

    def pauses(self) -> Iterator[float]:
        for number in range(self.tries - 1):
            yield random.uniform(0, min(self.most_seconds, self.first_seconds * 2**number))  # noqa: S311


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes [start, start + length) of a file, as a body."""

    file: BinaryIO
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body has been read, or has gone into the caller's sink."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Refused(Exception):
    """The server's last word, after everything that could be tried again was."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(f"{status} {refusal.code}")
        self.status = status
        self.refusal = refusal


class Stopped(Exception):
    """The transfer was called off."""


Read = Callable[[memoryview], int]
"""Fills a buffer with what comes next; 0 at the end."""
Sink = Callable[[Read], None]
T = TypeVar("T")
Sign = Callable[[], tuple[str, Mapping[str, str]]]
"""URL and headers of a request, made anew for every try: signatures age."""


class Requests:
    """Connections to one server, one for each thread. `stop` ends what is under way in all of them."""

    def __init__(self, *, ca_file: Path | None = None, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._ca_file = ca_file
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            for connection in self._open:
                if connection.sock is not None:
                    with _quiet():
                        connection.sock.shutdown(2)

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def send(
        self, method: str, sign: Sign, body: bytes | Slice = b"", *, sink: Sink | None = None, ok: tuple[int, ...] = ()
    ) -> Answer:
        """Raises Refused, or Stopped. A sink may be called again, for the whole body, when a try fails midway."""
        pauses = self._patience.pauses()
        while True:
            try:
                answer = self._once(method, *sign(), body, sink)
                if answer.status < 300 or answer.status in ok:
                    return answer
                problem = _refusal_of(answer)
            except ssl.SSLCertVerificationError as error:
                raise Refused(0, Refusal("UntrustedCertificate")) from error
            except NETWORK as error:
                problem = Refused(0, Refusal("Unreachable"))
                problem.__cause__ = error
            if self._stopped.is_set():
                raise Stopped from None
            passing = problem.status in RETRIED or problem.refusal.code in (RETRIED_CODES | {"Unreachable"})
            pause = next(pauses, None) if passing else None
            if pause is None:
                raise problem
            if self._stopped.wait(pause):
                raise Stopped

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Slice, sink: Sink | None
    ) -> Answer:
        if self._stopped.is_set():
            raise Stopped
        parts = urlsplit(url)
        connection = self._connection(parts.scheme, parts.netloc)
        try:
            self._write(connection, method, f"{parts.path}?{parts.query}" if parts.query else parts.path, headers, body)
            with connection.getresponse() as response:
                told = {name.lower(): value for name, value in response.getheaders()}
                if sink is not None and response.status == http.HTTPStatus.PARTIAL_CONTENT:
                    sink(response.readinto)
                    return Answer(response.status, told)
                if sink is not None and response.status < 300:
                    raise Refused(response.status, Refusal("RangeIgnored"))
                return Answer(response.status, told, response.read())
        except BaseException:
            connection.close()
            raise

    def _write(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Slice,
    ) -> None:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        length = body.length if isinstance(body, Slice) else len(body)
        if length or method in ("PUT", "POST"):
            connection.putheader("content-length", str(length))
        connection.endheaders(None if isinstance(body, Slice) else body)
        if not isinstance(body, Slice) or not body.length:
            return
        try:
            self._send_file(connection, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses before it has read everything says why: read that

    def _send_file(self, connection: http.client.HTTPConnection, body: Slice) -> None:
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            if sock.sendfile(body.file, body.start, body.length) < body.length:  # in the kernel
                raise OSError(f"{body.file.name} is shorter than it was")
            return
        with open(body.file.name, "rb") as source:  # noqa: PTH123 - a position of its own
            source.seek(body.start)
            left = body.length
            while left and (piece := source.read(min(PIECE_BYTES, left))):
                sock.sendall(piece)
                left -= len(piece)

    def _trust(self) -> ssl.SSLContext:
        """One for all connections: reading the system's authorities takes its time."""
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
                if self._ca_file:
                    self._context.load_verify_locations(self._ca_file)
            return self._context

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        known: dict[tuple[str, str], http.client.HTTPConnection] = self._local.__dict__.setdefault("known", {})
        if (scheme, netloc) not in known:
            connection: http.client.HTTPConnection
            if scheme == "https":
                connection = http.client.HTTPSConnection(netloc, timeout=SOCKET_SECONDS, context=self._trust())
            else:
                connection = http.client.HTTPConnection(netloc, timeout=SOCKET_SECONDS)
            known[scheme, netloc] = connection
            with self._lock:
                self._open.add(connection)
        return known[scheme, netloc]


async def in_thread(work: Callable[[Requests], T], requests: Requests) -> T:
    """Closes the connections at the end. A cancellation ends them, and waits for the thread."""
    task = asyncio.ensure_future(asyncio.to_thread(work, requests))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        requests.stop()
        await asyncio.wait({task})
        task.exception()
        raise
    finally:
        requests.close()


def _refusal_of(answer: Answer) -> Refused:
    code = code_in(answer.body[:4096].decode("utf-8", "replace"))
    return Refused(answer.status, Refusal(code or str(answer.status), answer.headers.get("date", "")))


@contextmanager
def _quiet() -> Iterator[None]:
    try:
        yield
    except OSError:
        pass
