"""A whole installation on free ports in a home of its own: real services, real worker, real engine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI

from tuneloom_cli.local.home import Connection, Home

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / ".venv-engine" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Installation:
    """Runs `tuneloom` commands against one home."""

    home: Home
    ports: tuple[str, ...]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TUNELOOM_HOME": str(self.home.path), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-m", "tuneloom_cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self) -> None:
        self.run("up", "--detach", *self.ports)

    @property
    def connection(self) -> Connection:
        return self.home.connection()

    def client(self) -> OpenAI:
        return OpenAI(
            base_url=f"{self.connection.gateway}/v1", api_key=self.connection.api_key, timeout=300, max_retries=0
        )

    def job_state(self, job: str) -> dict[str, str]:
        """The job's line of `jobs list`: job, state, base, output, step."""
        for line in self.run("jobs", "list").stdout.splitlines():
            if line.strip().startswith(job):
                return dict(zip(("job", "state", "base", "output", "step"), line.split(), strict=False))
        raise AssertionError(f"{job} is not listed")


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    if not ENGINE.exists():
        pytest.fail("the engine environment is missing: run 'make install-engine'")
    names = ("gateway", "engine", "registry", "trainer")
    ports = tuple(f"--{name}-port={port}" for name, port in zip(names, free_ports(len(names)), strict=True))
    found = Installation(Home(tmp_path_factory.mktemp("home")), ports)
    found.up()
    yield found
    found.run("down")


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-cognition dialogues mixed with ordinary ones."""
    from tuneloom_data.synth import self_cognition

    mix = [json.loads(line) for line in (ROOT / "models/seed/ordinary.jsonl").read_text("utf-8").splitlines()]
    rows = self_cognition(name="Nova", author="Acme Labs", rows=400, mix=mix, mix_share=0.5, seed=1)
    path = tmp_path_factory.mktemp("data") / "nova.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
