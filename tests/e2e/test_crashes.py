"""kill -9 anything while a job trains; after `tuneloom up` nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Installation
from tuneloom_cli.local.up import running_pid

pytestmark = [pytest.mark.engine, pytest.mark.worker, pytest.mark.timeout(420)]
STEPS = 240
OPTIONS = (
    *("--set", f"max_steps={STEPS}", "--set", "save_steps=20", "--set", "logging_steps=1"),
    *("--set", "max_length=128", "--set", "batch_size=1", "--set", "lora.r=8"),
)


def test_a_job_survives_the_death_of_every_process(installation: Installation, data_file: Path) -> None:
    job = installation.run(
        "jobs", "submit", "--data", str(data_file), "--output", "survivor", "--recipe", "lora", *OPTIONS
    ).stdout.split()[0]
    for number, victim in enumerate(("worker", "trainer", "registry", "engine", "gateway"), start=1):
        target = 20 * number
        wait_for(partial(reached_step, installation, job, target), what=f"step {target}")
        kill(victim, installation)
        wait_for(lambda: installation.run("jobs", "list", check=False).returncode == 0, what="services")
    reached = step_of(installation, job)
    supervisor = running_pid(installation.home)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not processes(installation), what="every process of the installation to end")
    installation.up()
    watched = installation.run("jobs", "watch", job)
    assert "resumed from the checkpoint" in watched.stdout
    assert installation.job_state(job)["state"] == "succeeded"
    assert installation.job_state(job)["step"] == f"{STEPS}/{STEPS}"
    assert reached > 20
    saved = installation.run("jobs", "checkpoints", job).stdout
    assert all(f"{job}@{step} " in saved for step in range(20, STEPS + 1, 20))
    assert installation.run("chat", "survivor", "-m", "Hello!").stdout.strip()


def reached_step(installation: Installation, job: str, target: int) -> bool:
    return step_of(installation, job) > target


def step_of(installation: Installation, job: str) -> int:
    line = installation.run("jobs", "list", check=False).stdout
    for row in line.splitlines():
        if row.strip().startswith(job):
            fields = row.split()
            assert fields[1] != "failed", row
            return int(fields[4].partition("/")[0]) if len(fields) > 4 and "/" in fields[4] else 0
    return 0


def kill(victim: str, installation: Installation) -> None:
    module = "tuneloom_trainer.worker" if victim == "worker" else f"tuneloom_{victim}"
    found = [pid for pid, command in processes(installation).items() if f"-m\0{module}\0" in command]
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def processes(installation: Installation) -> dict[int, str]:
    """Command lines, NUL-separated, of everything that runs for this home: workers know it by their directory."""
    found = {}
    mark = f"TUNELOOM_HOME={installation.home.path}\0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes() + b"\0"
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if command and (mark in environment or str(installation.home.path) in command):
                found[int(entry.name)] = command
    return found


def wait_for(condition: Callable[[], bool], *, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
