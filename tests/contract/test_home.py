"""A home directory of an earlier release is used as it is: keys outlive the upgrade."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import EACH_RELEASE
from tuneloom_cli.local.home import Home, Ports

pytestmark = EACH_RELEASE


@pytest.fixture
def home(release: Path, tmp_path: Path) -> Home:
    shutil.copy(release / "home" / "connection.json", tmp_path)
    return Home(tmp_path)


def test_its_connection_is_read(home: Home) -> None:
    stored = json.loads(home.connection_file.read_bytes())
    connection = home.connection()
    assert {name: getattr(connection, name) for name in stored} == stored


def test_starting_again_keeps_its_keys(home: Home) -> None:
    stored = json.loads(home.connection_file.read_bytes())
    again = home.prepare(Ports())
    assert (again.api_key, again.service_token) == (stored["api_key"], stored["service_token"])
    assert home.connection().api_key == stored["api_key"]


def test_a_field_of_a_newer_release_does_not_lock_its_owner_out(home: Home) -> None:
    stored = json.loads(home.connection_file.read_bytes())
    home.connection_file.write_text(json.dumps({**stored, "worker_token": "later"}))
    assert home.connection().api_key == stored["api_key"]
    home.prepare(Ports())
    assert json.loads(home.connection_file.read_bytes())["worker_token"] == "later"
