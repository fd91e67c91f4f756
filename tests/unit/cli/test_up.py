"""What `up` does around the services: supervise, offer a base model, be found and be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.unit.cli.conftest import Say, World
from tuneloom_cli.local.home import Connection, Home, Ports
from tuneloom_cli.local.offering import offer_base, warm
from tuneloom_cli.local.processes import Service
from tuneloom_cli.local.supervision import supervise
from tuneloom_cli.local.up import running_pid
from tuneloom_common.errors import FailedPrecondition, InvalidArgument

LISTEN = (
    "import os, socket, signal; s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "print('up', os.environ['NAME'], flush=True)\n"
    "while True: s.accept()"
)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """`up` makes this process's files private; the next test gets its umask back."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)


class Listener(Service):
    """A service that does nothing but listen."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", self.module]


def listeners(*names: str) -> list[Service]:
    services: list[Service] = []
    for name in names:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        services.append(Listener(name, LISTEN, port, {"PORT": str(port), "NAME": name}))
    return services


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make_private()
    return home


async def test_everything_runs_until_it_is_asked_to_stop(home: Home) -> None:
    seen: dict[str, Any] = {}

    async def work(ready: Callable[[], object]) -> None:
        ready()
        seen["pid"], seen["ready"] = running_pid(home), (home.path / "ready").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    services = listeners("registry", "gateway")
    await supervise(home, services, work)
    assert seen == {"pid": os.getpid(), "ready": True}
    assert running_pid(home) is None
    assert not (home.path / "ready").exists()
    assert [(home.logs / f"{name}.log").read_text() for name in ("registry", "gateway")] == [
        "up registry\n",
        "up gateway\n",
    ]
    for service in services:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", service.port)):
            pass


async def test_work_that_ends_leaves_the_services_running(home: Home) -> None:
    async def work(ready: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

    await supervise(home, listeners("registry"), work)


async def test_work_that_fails_ends_everything_with_its_error(home: Home) -> None:
    async def work(ready: Callable[[], object]) -> None:
        raise InvalidArgument("the base is no model")

    with pytest.raises(InvalidArgument, match="no model"):
        await supervise(home, listeners("registry"), work)
    assert running_pid(home) is None


async def test_a_service_that_never_comes_up_ends_everything_with_its_words(home: Home) -> None:
    async def work(ready: Callable[[], object]) -> None:
        raise AssertionError("nothing is ready")

    good = listeners("registry")
    broken = Listener("trainer", "print('TUNELOOM_TRAINER_SLOTS: not a number'); raise SystemExit(2)", 1, {})
    with pytest.raises(FailedPrecondition, match=r"(?s)trainer does not stay up.*TUNELOOM_TRAINER_SLOTS"):
        await supervise(home, [*good, broken], work)


def model(directory: Path, salt: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}" + salt)
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "tokenizer.json").write_text('{"added_tokens": []}')
    (directory / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "eos_token": "</s>"}')
    return directory


def test_the_base_is_offered_once_and_a_changed_one_is_told(world: World, tmp_path: Path, capsys: Any) -> None:
    connection = world.home.connection()
    directory = model(tmp_path / "base")
    first = asyncio.run(offer_base(connection, directory, "seed"))
    assert asyncio.run(offer_base(connection, directory, "seed")) == first
    assert "still means an older version" not in capsys.readouterr().out
    second = asyncio.run(offer_base(connection, model(directory, salt=" "), "seed"))
    said = " ".join(capsys.readouterr().out.split())
    assert second != first
    assert "seed still means an older version; tuneloom models alias seed default 2 changes that" in said


def connection_to(url: str) -> Connection:
    return Connection("", "", "", url, service_token="owner", api_key="")


async def warmed(answer: web.Response) -> list[tuple[str, str, str]]:
    heard = []

    async def handle(request: web.Request) -> web.Response:
        heard.append((request.method, request.path, request.headers["authorization"]))
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server:
        await warm(connection_to(str(server.make_url("")).rstrip("/")), "seed--0123456789ab")
    return heard


async def test_the_first_engine_is_asked_for_with_the_owners_token(capsys: Any) -> None:
    heard = await warmed(web.json_response({"url": "unix:/somewhere"}))
    assert heard == [("POST", "/replicas/seed--0123456789ab", "Bearer owner")]
    assert capsys.readouterr().out == "engine seed--0123456789ab is ready\n"


async def test_an_engine_that_fails_is_told_with_its_cause(capsys: Any) -> None:
    await warmed(web.json_response({"error": "it ended: no [memory] left"}, status=503))
    assert "no [memory] left" in " ".join(capsys.readouterr().out.split())
    await warm(connection_to("http://127.0.0.1:1"), "seed--0123456789ab")
    assert "no engine for seed--0123456789ab" in capsys.readouterr().out


def test_a_running_home_is_not_started_twice(home: Home, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setenv("TUNELOOM_HOME", str(home.path))
    home.prepare(Ports())
    with home.lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4242")
        lock.flush()
        with pytest.raises(FailedPrecondition, match=r"already running in .*\(pid 4242\).*tuneloom down"):
            say("up")
        (home.path / "ready").write_text("4242")
        assert "was running already" in say("up", "--detach").output


def test_a_base_that_is_no_model_is_said_before_anything_starts(
    home: Home, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(home.path))
    with pytest.raises(InvalidArgument, match=r"no config\.json"):
        say("up", "--base", str(tmp_path))
    assert not home.connection_file.exists()
