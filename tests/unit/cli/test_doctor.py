from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneloom_cli import checks
from tuneloom_cli.checks import Finding
from tuneloom_cli.commands.doctor import tell
from tuneloom_cli.local.home import Home, Ports

GOOD = Finding("python", True, "3.11.2")
OPTIONAL = Finding("seed model", False, "[missing]", "make base", required=False)
BROKEN = Finding("engine", False, "no engine environment", "make install-engine")


def test_each_finding_has_its_mark_and_its_mend(capsys: Any) -> None:
    assert tell([GOOD, OPTIONAL], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "✓ python: 3.11.2",
        "• seed model: [missing]",
        "    mend: make base",
    ]
    assert not tell([GOOD, BROKEN], as_json=False)
    assert "✗ engine: no engine environment" in capsys.readouterr().out


def test_findings_can_be_read_by_a_program(capsys: Any) -> None:
    assert not tell([GOOD, BROKEN], as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"what": "python", "good": True, "details": "3.11.2", "mend": "", "required": True}
    assert (second["good"], second["mend"]) == (False, "make install-engine")


def test_services_are_asked_where_the_home_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(tmp_path))
    [nothing] = checks.services()
    assert (nothing.good, nothing.required, nothing.mend) == (False, False, "tuneloom up")
    with socket.socket() as listening, socket.socket() as silent:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        silent.bind(("127.0.0.1", 0))
        here, nowhere = (each.getsockname()[1] for each in (listening, silent))
        Home(tmp_path).prepare(Ports(gateway=here, engine_host=nowhere, registry=here, trainer=nowhere))
        found = {finding.what: finding for finding in checks.services()}
    assert {what: finding.good for what, finding in found.items()} == {
        "registry": True,
        "trainer": False,
        "engine host": False,
        "gateway": True,
    }
    assert f"nobody listens on 127.0.0.1:{nowhere}" in found["trainer"].details


def test_services_of_a_cluster_are_asked_at_their_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(tmp_path))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        places = {
            "REGISTRY_ADDRESS": "dns:///localhost",
            "TRAINER_ADDRESS": f"ipv4:127.0.0.1:9,127.0.0.1:{port}",
            "GATEWAY_URL": "http://me:secret@127.0.0.1:9/v1",
        }
        for name, value in places.items():
            monkeypatch.setenv(f"TUNELOOM_CLI_{name}", value)
        found = {finding.what: finding for finding in checks.services()}
    assert found["trainer"].good
    for what, setting in (("registry", "REGISTRY_ADDRESS"), ("gateway", "GATEWAY_URL")):
        assert not found[what].good
        assert found[what].mend == f"start it, or set TUNELOOM_CLI_{setting} to where it is"
    assert "secret" not in found["gateway"].details


def test_a_missing_engine_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_ENGINE_PYTHON", str(tmp_path / "python"))
    engine = checks._engine()
    assert (engine.good, engine.mend) == (False, "make install-engine")
    monkeypatch.setenv("TUNELOOM_ENGINE_PYTHON", sys.executable)  # has no vLLM
    engine = checks._engine()
    assert not engine.good


def test_free_space_is_that_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_HOME", str(tmp_path / "not" / "yet"))
    assert str(tmp_path / "not" / "yet") in checks._disk().details


def test_a_probe_says_what_went_wrong() -> None:
    good, said = checks._probe(Path(sys.executable), "print('ready')")
    assert (good, said) == (True, "ready")
    good, said = checks._probe(Path(sys.executable), "raise SystemExit('no torch')")
    assert (good, said) == (False, "no torch")
    good, said = checks._probe(Path("/nowhere/python"), "")
    assert not good
    assert "/nowhere/python" in said
