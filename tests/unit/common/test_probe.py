"""What a container's health check says of a service."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.authority import Authority
from tuneloom_common.grpc import bind, build_server
from tuneloom_common.probe import problem
from tuneloom_common.tls import ServerTls


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("path", "said"), [("/healthz", ""), ("/readyz", "503")])
def test_http_must_answer_200(path: str, said: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        found = problem(f"http://127.0.0.1:{server.server_port}{path}")
        thread.join()
    assert bool(found) == bool(said)
    assert said in found


async def test_grpc_must_say_that_it_serves() -> None:
    server = await build_server(domain="example", services=[])
    port = bind(server, "127.0.0.1:0", setting="NONE")
    await server.start()
    assert await asyncio.to_thread(problem, f"grpc://127.0.0.1:{port}") == ""
    await server.stop(None)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_there_is_a_problem(scheme: str) -> None:
    assert "does not answer" in problem(f"{scheme}://127.0.0.1:9")


async def test_of_a_service_with_a_certificate_a_handshake_is_asked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = await build_server(domain="example", services=[])
    tls = ServerTls(authority.issue("service").pair, authority.path)  # it lets in nobody without a certificate
    port = bind(server, "127.0.0.1:0", setting="NONE", tls=tls)
    await server.start()
    assert await asyncio.to_thread(problem, f"grpc://127.0.0.1:{port}", secured=True) == ""
    await server.stop(None)
    assert "does not answer" in await asyncio.to_thread(problem, f"grpc://127.0.0.1:{port}", secured=True)
