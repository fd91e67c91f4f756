"""The merge benchmark measures a child, not the process that started it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.merging import measured


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    return tmp_path / "figures.jsonl"


def run(figures: Path, code: str, tmp_path: Path) -> dict[str, float]:
    (tmp_path / "worked.py").write_text(code)
    command = [sys.executable, measured.__file__, str(figures), "worked"]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(tmp_path)})
    found: dict[str, float] = json.loads(figures.read_text().splitlines()[-1])
    return found


def test_what_the_parent_holds_is_not_counted(figures: Path, tmp_path: Path) -> None:
    held = bytearray(b"x" * (200 << 20))
    assert run(figures, "pass", tmp_path)["peak_memory_mib"] < 60
    assert len(held) == 200 << 20


def test_memory_that_was_freed_again_is_counted(figures: Path, tmp_path: Path) -> None:
    assert run(figures, "held = bytearray(b'x' * (200 << 20)); del held", tmp_path)["peak_memory_mib"] > 200


def test_processor_time_is_counted(figures: Path, tmp_path: Path) -> None:
    found = run(figures, "import time\nwhile time.process_time() < 0.3: pass", tmp_path)
    assert 0.2 < found["cpu_seconds"] < 5
    assert found["process_seconds"] > 0.1


def test_figures_are_kept_when_the_module_fails(figures: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(figures, "raise SystemExit(3)", tmp_path)
    assert figures.exists()
