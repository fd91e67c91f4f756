"""The engine host with a real vLLM, a tiny model and two PEFT adapters. Skipped without the engine environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.unit.engine.fakes import TOKEN, FakeRegistry, running_registry
from tuneloom_common.errors import Unavailable

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("TUNELOOM_ENGINE_PYTHON", ROOT / ".venv-engine/bin/python"))
START_SECONDS = 180
ENGINE = "http://engine"
HOST_TOKEN = "host-token"
HEADERS = {"Authorization": f"Bearer {HOST_TOKEN}"}
PROMPT = [{"role": "user", "content": "hello"}]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHON.exists(), reason="no engine environment; run 'make install-engine'"),
]


@dataclass
class World:
    registry: FakeRegistry
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    url: str
    base: str
    adapters: tuple[str, str]

    async def engine(self, name: str = "") -> dict[str, Any]:
        """A ready replica, by default the base's."""
        async with self.session.post(f"{self.url}/replicas/{name or self.base}") as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def chat(self, model: str, *, replica: str = "", **more: Any) -> tuple[int, Any]:
        engine = await self.engine(replica)
        body = {"model": model, "messages": PROMPT, "temperature": 0, "max_tokens": 12, **more}
        async with reaching(engine) as session, session.post(f"{ENGINE}/v1/chat/completions", json=body) as response:
            return response.status, await response.json()

    async def says(self, model: str, *, replica: str = "") -> str:
        status, answer = await self.chat(model, replica=replica, ignore_eos=True)
        assert status == 200, answer
        content: str = answer["choices"][0]["message"]["content"]
        return content


def reaching(engine: dict[str, Any]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(engine["url"].removeprefix("unix:")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    root = tmp_path_factory.mktemp("engine")
    writer = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("tiny.py")), str(root / "tiny")
    )
    assert await writer.wait() == 0
    async with running_registry(root) as registry, aiohttp.ClientSession(headers=HEADERS) as session:
        base = await registry.publish("tiny", "base", root / "tiny/base")
        adapters = [
            await registry.publish(f"tuned-{seed}", "adapter", root / f"tiny/adapter-{seed}", base=base)
            for seed in (1, 2)
        ]
        port = free_port()
        with (root / "host.log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tuneloom_engine", cwd=root, env=environment(registry, port), stderr=output
            )
        world = World(registry, process, session, f"http://127.0.0.1:{port}", base, (adapters[0], adapters[1]))
        await until_up(world)
        yield world
        if process.returncode is None:
            process.terminate()
            await process.wait()


def environment(registry: FakeRegistry, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "TUNELOOM_ENGINE_PORT": str(port),
        "TUNELOOM_ENGINE_PYTHON": str(PYTHON),
        "TUNELOOM_ENGINE_REGISTRY_ADDRESS": registry.address,
        "TUNELOOM_ENGINE_REGISTRY_TOKEN": TOKEN,
        "TUNELOOM_ENGINE_TOKEN": HOST_TOKEN,
        "TUNELOOM_ENGINE_OBJECTS_URL": registry.objects.url,
        "TUNELOOM_ENGINE_KV_CACHE_GIB": "0.1",
        "TUNELOOM_ENGINE_START_TIMEOUT_SECONDS": str(START_SECONDS),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until_up(world: World) -> None:
    for _ in range(200):
        try:
            async with world.session.get(f"{world.url}/healthz"):
                return
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
    raise AssertionError("the engine host does not listen")


def members(session_id: int) -> list[int]:
    """The living processes of a session, zombies not counted."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session_id and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


async def until_gone(session_id: int) -> None:
    for _ in range(100):
        if not members(session_id):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still there: {members(session_id)}")


async def until_refused(engine: dict[str, Any]) -> None:
    """Waits until the engine takes no new connection."""
    for _ in range(200):
        try:
            async with reaching(engine) as session, session.get(f"{ENGINE}/health"):
                await asyncio.sleep(0.05)
        except aiohttp.ClientError:
            return
    raise AssertionError("the engine still takes requests")


async def test_adapters_are_resolved_on_first_use_and_do_not_mix(world: World) -> None:
    names = (world.base, *world.adapters)
    alone = {name: await world.says(name) for name in names}
    assert len(set(alone.values())) == len(names)
    many = [*names] * 8
    answers = await asyncio.gather(*(world.says(name) for name in many))
    assert [alone[name] for name in many] == answers


async def test_many_requests_for_a_new_adapter_resolve_it_once(world: World, tmp_path: Path) -> None:
    source = world.registry.staging.parent / "tiny/adapter-1"
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    twin = await world.registry.publish("twin", "adapter", files | {"README.md": b"twin"}, base=world.base)
    answers = await asyncio.gather(*(world.says(twin) for _ in range(8)))
    assert set(answers) == {await world.says(world.adapters[0])}
    assert world.registry.asked.count(twin) == 1


async def test_names_that_mean_nothing_here_are_not_found(world: World) -> None:
    other = await world.registry.publish_model("other")
    stranger = await world.registry.publish_adapter("stranger", base=other)
    for name in ("ghost--0123456789ab", "../../etc/passwd", "tiny", other, stranger):
        status, answer = await world.chat(name)
        assert status == 404, (name, answer)


async def test_a_failing_registry_is_a_503_and_the_engine_goes_on(world: World) -> None:
    world.registry.failure = Unavailable("the database is away")
    status, answer = await world.chat("later--0123456789ab")
    world.registry.failure = None
    assert status == 503
    assert "database is away" in answer["error"]["message"]
    assert await world.says(world.adapters[1])


async def test_answers_can_be_constrained(world: World) -> None:
    choice = ["left", "right"]
    status, answer = await world.chat(world.adapters[0], structured_outputs={"choice": choice})
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"] in choice


async def test_a_merged_model_answers_as_its_adapter_does(world: World) -> None:
    directory = world.registry.staging.parent / "tiny/merged"
    merged = await world.registry.publish("folded", "merged", directory, base=world.base)
    assert await world.says(merged, replica=merged) == await world.says(world.adapters[0])


async def test_what_could_harm_an_engine_is_closed(world: World) -> None:
    async with reaching(await world.engine()) as session:
        for path in ("/v1/load_lora_adapter", "/pause", "/invocations", "/v1/unload_lora_adapter"):
            async with session.post(f"{ENGINE}{path}", json={}) as response:
                assert response.status == 404, path


async def test_nobody_else_reaches_an_engine_and_it_knows_no_secret(world: World) -> None:
    engine = await world.engine()
    pids = members(engine["pid"])
    for pid in pids:
        variables = [line for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "TUNELOOM" in line]
        assert not any(secret in line for line in variables for secret in (TOKEN, HOST_TOKEN)), variables
    socket = Path(engine["url"].removeprefix("unix:"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (socket, socket.parent)}
    assert modes == {socket.name: 0o700, socket.parent.name: 0o700}


async def test_no_prompt_is_in_any_log(world: World) -> None:
    marker = "xyzzy-plugh"
    for body in (
        {"messages": [{"role": "user", "content": marker}], "max_tokens": 4},
        {"messages": [{"role": "user", "content": marker * 4000}], "max_tokens": 4},
        {"messages": [{"role": marker, "content": [marker]}]},
        {"messages": marker},
        {"messages": [{"role": "user", "content": marker}], "temperature": marker},
        {"messages": [{"role": "user", "content": marker}], "structured_outputs": {"json": marker}},
        {"messages": [{"role": "user", "content": marker}], "chat_template": "{{ messages[0]['content'] / 0 }}"},
    ):
        await world.chat(world.base, **body)
    logs = list(world.registry.staging.parent.rglob("*.log*"))
    assert {"host.log", f"{world.base}.log"} <= {path.name for path in logs}
    for path in logs:
        assert marker not in path.read_text(errors="replace"), path


async def test_a_version_that_cannot_start_tells_why_and_disturbs_nobody(world: World) -> None:
    good = await world.engine()
    config = json.loads((world.registry.staging.parent / "tiny/base/config.json").read_text())
    files = {path.name: path.read_bytes() for path in (world.registry.staging.parent / "tiny/base").iterdir()}
    config |= {"model_type": "nonsense", "architectures": ["NonsenseForCausalLM"]}
    files["config.json"] = json.dumps(config).encode()
    name = await world.registry.publish("nonsense", "base", files)
    async with world.session.post(f"{world.url}/replicas/{name}") as response:
        answer = await response.json()
    assert (response.status, answer["reason"]) == (503, "ENGINE_FAILED")
    assert "model type `nonsense`" in answer["error"]
    assert "NonsenseForCausalLM" in answer["log"] or "nonsense" in answer["log"]
    assert (await world.engine())["pid"] == good["pid"]
    async with world.session.get(f"{world.url}/replicas/{world.base}") as response:
        seen = await response.json()
    assert (seen["state"], seen["expected_seconds"]) == ("ready", pytest.approx(seen["seconds"], abs=0.2))


async def test_a_stop_lets_running_requests_finish(world: World) -> None:
    engine = await world.engine()
    body = {"model": world.base, "messages": PROMPT, "max_tokens": 300, "ignore_eos": True, "stream": True}
    async with reaching(engine) as session, session.post(f"{ENGINE}/v1/chat/completions", json=body) as response:
        await response.content.readline()
        stop = asyncio.create_task(world.session.delete(f"{world.url}/replicas/{world.base}"))
        await until_refused(engine)
        lines = [line async for line in response.content]
        assert lines[-2] == b"data: [DONE]\n"
        assert b'"finish_reason":"length"' in b"".join(lines)
    assert (await stop).status == 204
    await until_gone(engine["pid"])


async def test_what_is_asked_while_an_engine_drains_is_answered_whole_or_not_at_all(world: World) -> None:
    """An answer without content would be worse than none: a gateway repeats what got no answer."""
    engine = await world.engine()
    body = {"model": world.base, "messages": PROMPT, "max_tokens": 12, "ignore_eos": True}
    answered: list[tuple[int, Any]] = []

    async def keep_asking() -> None:
        async with reaching(engine) as session:  # one connection, kept alive
            while True:
                try:
                    async with session.post(f"{ENGINE}/v1/chat/completions", json=body) as response:
                        answered.append((response.status, await response.json()))
                except (aiohttp.ClientError, ConnectionError):
                    return

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    await asyncio.sleep(1)
    assert (await world.session.delete(f"{world.url}/replicas/{world.base}")).status == 204
    await asyncio.gather(*asking)
    assert {status for status, _ in answered} == {200}
    assert {answer["usage"]["completion_tokens"] for _, answer in answered} == {12}
    assert {bool(answer["choices"][0]["message"]["content"]) for _, answer in answered} == {True}


async def test_a_killed_host_leaves_no_engine(world: World) -> None:
    engine = await world.engine()
    assert len(members(engine["pid"])) >= 2
    world.process.send_signal(signal.SIGKILL)
    await world.process.wait()
    await until_gone(engine["pid"])
