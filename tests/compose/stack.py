"""A composed installation under a name of its own: started, asked, restarted, and removed without a trace."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

from openai import OpenAI

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
STORES = ("postgres", "s3")
SERVICES = ("registry", "builder", "trainer", "worker", "engine", "gateway")
START_SECONDS = 300
COMMAND_SECONDS = 900


def reader() -> tuple[str, ...] | None:
    """The compose command of this machine, which reads its files without a Docker; None without."""
    commands: tuple[tuple[str, ...], ...] = (("docker-compose",), ("docker", "compose"))
    return next((command for command in commands if shutil.which(command[0]) and _works(*command, "version")), None)


def installed() -> tuple[str, ...] | None:
    """The same, with a Docker that answers."""
    return reader() if shutil.which("docker") and _works("docker", "info") else None


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def docker(*arguments: str, data: bytes | None = None) -> str:
    """What a docker command prints; it must succeed."""
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode()


@dataclass
class Stack:
    """`files` are those of deploy/compose, `work` is the directory that commands see as /work."""

    command: tuple[str, ...]
    work: Path
    files: Sequence[str] = ("compose.yaml",)
    environment: dict[str, str] = field(default_factory=dict)
    project: str = field(default_factory=lambda: f"tuneloom-test-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.gateway, registry, trainer = free_ports(3)
        self.environment = {
            "TUNELOOM_TAG": os.environ.get("TAG") or "dev",
            "TUNELOOM_GATEWAY_PORT": str(self.gateway),
            "TUNELOOM_REGISTRY_PORT": str(registry),
            "TUNELOOM_TRAINER_PORT": str(trainer),
            "TUNELOOM_FILES": str(self.work),
            **self.environment,
        }
        self.work.chmod(0o755)  # the containers' user is nobody here

    def compose(self, *arguments: str, data: bytes | None = None, check: bool = True) -> str:
        files = [part for name in self.files for part in ("-f", str(COMPOSE / name))]
        done = subprocess.run(
            [*self.command, *files, "-p", self.project, *arguments],
            env={**os.environ, **self.environment},
            input=data,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    @property
    def services(self) -> tuple[str, ...]:
        """What runs for as long as the installation does."""
        return (*SERVICES, *(STORES if "cluster.yaml" in self.files else ()))

    @property
    def healthy(self) -> bool:
        return all(self.health(service) == "healthy" for service in self.services)

    def up(self) -> None:
        """Starts everything and waits until every service is healthy and the seed model is stored."""
        self.compose("up", "-d")
        self.wait(lambda: self.healthy, START_SECONDS)
        self.wait(lambda: self.state("seed")["Status"] == "exited", START_SECONDS)
        assert self.state("seed")["ExitCode"] == 0, self.logs("seed")

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")

    def cli(self, *arguments: str) -> str:
        """Runs one tuneloom command in a container."""
        return self.compose("run", "--rm", "-T", "cli", *arguments)

    def jobs(self) -> dict[str, Any]:
        return {job["id"]: job for job in json.loads(self.cli("jobs", "list", "--json"))}

    def client(self) -> OpenAI:
        key = self.cli("key").strip()
        return OpenAI(base_url=f"http://127.0.0.1:{self.gateway}/v1", api_key=key, timeout=300, max_retries=0)

    def container(self, service: str) -> str:
        """Ids of all of a service's containers, of which there is one."""
        label = f"label=com.docker.compose.service={service}"
        return docker("ps", "-aq", "-f", f"label=com.docker.compose.project={self.project}", "-f", label).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)))[0]
        return found

    def state(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect(service)["State"]
        return found

    def health(self, service: str) -> str:
        return str(self.state(service).get("Health", {}).get("Status", ""))

    def logs(self, *services: str) -> str:
        return self.compose("logs", "--no-color", *services, check=False)

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            states = {service: self.health(service) for service in self.services}
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s; {states}\n{self.logs()[-6000:]}"
            time.sleep(1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
