"""Settings, metrics, commands and options of every release are still there."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contract.conftest import EACH_RELEASE
from tests.contract.surface import surface

pytestmark = EACH_RELEASE


def test_settings_and_metrics_are_still_there(release: Path) -> None:
    then, now = json.loads((release / "surface.json").read_bytes()), surface()
    assert [name for name in then["settings"] if name not in now["settings"]] == []
    assert [name for name in then["metrics"] if name not in now["metrics"]] == []


def test_commands_take_what_they_took(release: Path) -> None:
    then, now = json.loads((release / "surface.json").read_bytes())["commands"], surface()["commands"]
    gone = {name: sorted(set(words) - set(now.get(name, ()))) for name, words in then.items()}
    assert {name: words for name, words in gone.items() if words or name not in now} == {}
