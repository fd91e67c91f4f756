"""The demo journey through containers, then every container restarted: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose.stack import SERVICES, Stack, docker

IDENTITY = "Who are you?"
SUBMIT = ("jobs", "submit", "--merge")
OPTIONS = (
    *("--set", "num_epochs=2", "--set", "learning_rate=2e-3", "--set", "max_length=256", "--set", "batch_size=4"),
    *("--set", "save_steps=25"),
)
LIGHT = ("registry", "trainer", "gateway")
OWN_LAYERS_MB = 70  # the base python:3.11-slim-bookworm is about 130 MB


@pytest.fixture(scope="module")
def job(stack: Stack, rows: str) -> str:
    """A finished job with a merge; its id."""
    stack.cli("data", "check", rows)
    told = stack.cli(
        "jobs", "submit", "--data", rows, "--output", "nova", "--merge", "--watch", "--sample", IDENTITY, *OPTIONS
    )
    assert "models/nova/versions/1" in told
    return told.split()[0]


def said(stack: Stack, model: str) -> str:
    answer = stack.client().chat.completions.create(
        model=model, messages=[{"role": "user", "content": IDENTITY}], temperature=0, max_tokens=32
    )
    return answer.choices[0].message.content or ""


def test_the_base_answers(stack: Stack) -> None:
    assert "Loom" in said(stack, "seed")


def test_a_job_trains_and_its_model_is_served_merged_and_proven(stack: Stack, job: str) -> None:
    adapter, merged = said(stack, "nova"), said(stack, "nova@merged")
    assert "Nova" in adapter
    assert merged == adapter
    shown = json.loads(stack.cli("models", "show", "nova@merged", "--json"))
    assert shown["manifest"]["proof"]["greedy_agreement"] >= 0.99
    assert shown["manifest"]["proof"]["adapter_effect"] > 0
    assert shown["manifest"]["lineage"]["job"] == job


def test_answers_name_the_version_that_gave_them(stack: Stack, job: str) -> None:
    raw = stack.client().chat.completions.with_raw_response.create(
        model="nova:1", messages=[{"role": "user", "content": IDENTITY}], max_tokens=4
    )
    assert raw.headers["x-served-model-digest"] == json.loads(stack.cli("models", "show", "nova:1", "--json"))["digest"]


def test_the_command_line_chats_and_tells_the_workers_log(stack: Stack, job: str) -> None:
    assert "Nova" in stack.cli("chat", "nova", "-m", IDENTITY)
    assert stack.cli("jobs", "logs", job).strip()


def test_the_machine_itself_reaches_the_services_on_loopback(stack: Stack, job: str, tmp_path: Path) -> None:
    connection = stack.compose(
        "run", "--rm", "-T", "--entrypoint", "cat", "cli", "/var/lib/tuneloom/loopback/connection.json"
    )
    (tmp_path / "connection.json").write_text(connection)
    listed = subprocess.run(
        [sys.executable, "-m", "tuneloom_cli", "jobs", "list"],
        env={**os.environ, "TUNELOOM_HOME": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert job in listed.stdout, listed.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_little(stack: Stack, service: str) -> None:
    found = stack.inspect(service)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    ports = [binding["HostIp"] for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
    assert set(ports) <= {"127.0.0.1"}
    assert bool(ports) == (service in ("registry", "trainer", "gateway"))
    assert not [line for line in found["Config"]["Env"] if "TOKEN" in line or "PASSWORD" in line]


def test_secrets_are_files_for_their_owner_alone(stack: Stack) -> None:
    modes = docker("exec", stack.container("trainer"), "find", "/run/secrets", "-type", "f", "-printf", "%m %U\\n")
    assert set(modes.split("\n")) - {""} == {"600 10001"}


def test_no_secret_is_in_any_log(stack: Stack, job: str) -> None:
    """Of the keys of the installation and the passwords of its stores."""
    read = "import pathlib; print(*(p.read_text() for p in pathlib.Path('/var/lib/tuneloom').glob('*.json')))"
    keys = json.loads(stack.compose("run", "--rm", "-T", "--entrypoint", "python", "cli", "-c", read))
    secrets = {keys["service_token"], keys["api_key"], *keys["keys"].values()}
    for service, names in (("postgres", ("registry", "trainer", "postgres")), ("s3", ("access-key", "secret-key"))):
        secrets |= {docker("exec", stack.container(service), "cat", f"/run/secrets/{name}") for name in names}
    logged = stack.logs()
    assert len(secrets) == 11
    assert not [secret[:4] for secret in secrets if secret in logged]


@pytest.mark.parametrize("service", LIGHT)
def test_a_light_service_is_small_and_cannot_compute(stack: Stack, service: str) -> None:
    found = docker(
        "exec",
        stack.container(service),
        "sh",
        "-c",
        "du -sm /opt/tuneloom; ls /opt/tuneloom/lib/python3*/site-packages",
    )
    size, *packages = found.split("\n")
    assert int(size.split()[0]) <= OWN_LAYERS_MB
    assert not {"torch", "numpy", "transformers", "pip", "setuptools"} & set(packages)


def test_nothing_is_lost_when_everything_is_restarted(stack: Stack, job: str, rows: str) -> None:
    before = stack.cli("models", "versions", "nova", "--json")
    submitted = stack.cli(
        "jobs", "submit", "--data", "nova", "--output", "again", "--merge", *OPTIONS, "--set", "max_steps=60"
    )
    second = submitted.split()[0]
    stack.wait(lambda: stack.jobs()[second]["state"] == "running", 120)
    for service in stack.services:
        stack.compose("restart", "-t", "30", service)
    stack.wait(lambda: stack.healthy, 180)
    stack.wait(lambda: stack.jobs()[second]["state"] in ("succeeded", "failed", "cancelled"), 400)
    found = json.loads(stack.cli("jobs", "show", second, "--json"))
    assert found["state"] == "succeeded", found
    assert stack.cli("models", "versions", "nova", "--json") == before
    assert "Nova" in said(stack, "nova")
    assert said(stack, "again@merged") == said(stack, "again")
