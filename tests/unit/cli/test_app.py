"""The command itself: help, version, errors, speed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.unit.cli.conftest import Say


def tuneloom(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TUNELOOM_HOME": str(home)}
    command = [sys.executable, "-m", "tuneloom_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_version_is_the_distributions(say: Say) -> None:
    words = say("--version").output.split()
    assert words[0] == "tuneloom"
    assert words[1].count(".") == 2


def test_help_needs_no_heavy_module() -> None:
    code = (
        "import sys; sys.argv = ['tuneloom', '--help']\n"
        "from tuneloom_cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "assert not {'grpc', 'aiohttp', 'pydantic', 'openai', 'prompt_toolkit'} & set(sys.modules), sorted(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-500:]
    # CPU time, so that a busy machine does not fail the test.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_an_error_is_one_sentence_on_stderr(tmp_path: Path) -> None:
    done = tuneloom("models", "list", home=tmp_path / "[home]")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nothing was ever started in ")
    assert "[home]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
