"""`make images` on a machine that cannot build them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

BUILD = Path(__file__).parents[3] / "docker" / "build"
NOT_RUN = 3


def test_without_docker_it_says_what_to_install_and_counts_as_not_run() -> None:
    done = subprocess.run(
        [BUILD, "gateway"], env={**os.environ, "DOCKER": "/bin/false"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == NOT_RUN
    assert done.stderr.startswith("NOT RUN")
    assert "install docker" in done.stderr
