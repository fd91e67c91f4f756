"""Real containers of freshly built images. What is missing on this machine is said, and nothing is passed then."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import ROOT, Stack, installed

INSTALL = (
    "install Docker 20.10 or newer and docker-compose 1.29 or newer (as root: apt-get install docker.io docker-compose)"
)
NO_DOCKER = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/compose" in item.path.as_posix():
            item.add_marker(pytest.mark.compose)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def compose() -> tuple[str, ...]:
    """The compose command; all images are built, unless the environment says IMAGES=ready."""
    command = installed()
    if command is None:
        pytest.skip(f"NOT RUN: no Docker with compose answers here; {INSTALL}")
    if os.environ.get("IMAGES") != "ready":
        built = subprocess.run([ROOT / "docker" / "build"], capture_output=True, text=True, check=False)
        if built.returncode == NO_DOCKER:
            pytest.skip(built.stderr.strip())
        assert built.returncode == 0, built.stdout + built.stderr
    return command


@pytest.fixture(scope="module")
def files() -> tuple[str, ...]:
    """The compose files of the module's stack: PostgreSQL and S3."""
    return ("compose.yaml", "cluster.yaml")


@pytest.fixture(scope="module")
def stack(
    compose: tuple[str, ...], files: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running installation; removed at the end, volumes included."""
    found = Stack(compose, tmp_path_factory.mktemp("work"), files)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def rows(stack: Stack) -> str:
    """Self-cognition dialogues mixed with ordinary ones; the path as commands see it."""
    return write_rows(stack.work)


def write_rows(work: Path, count: int = 400) -> str:
    from tuneloom_data.synth import self_cognition

    mix = [json.loads(line) for line in (ROOT / "models/seed/ordinary.jsonl").read_text("utf-8").splitlines()]
    made = self_cognition(name="Nova", author="Acme Labs", rows=count, mix=mix, mix_share=0.5, seed=1)
    path = work / "nova.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    path.chmod(0o644)
    return f"/work/{path.name}"
