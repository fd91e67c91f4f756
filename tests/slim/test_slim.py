"""Service processes stay light: no machine learning library is imported, and none is needed to install them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "vllm", "deepspeed", "accelerate")
SERVICES = ("registry", "trainer", "gateway", "engine", "cli")
MAX_RESIDENT_MB = 150


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_machine_learning(service: str) -> None:
    code = (
        f"import tuneloom_{service}.app, sys;"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules];"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_installs_without_machine_learning(service: str) -> None:
    needed = _closure(f"tuneloom-{service}")
    assert needed.isdisjoint(HEAVY), needed & set(HEAVY)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_small_in_memory(service: str) -> None:
    # VmHWM begins anew with exec; ru_maxrss keeps what the forking parent had.
    code = f"import tuneloom_{service}.app; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) / 1024 < MAX_RESIDENT_MB


def test_the_seed_model_is_small() -> None:
    weights = Path(__file__).parents[2] / "models" / "seed" / "weights" / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000


def _closure(name: str) -> set[str]:
    """Names of every distribution that installing `name` without extras pulls in."""
    found: set[str] = set()
    waiting = [(name, frozenset[str]())]
    while waiting:
        current, extras = waiting.pop()
        for requirement in distribution(current).requires or ():
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", requirement)
            assert match is not None
            marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
            if marker and marker[1] not in extras:
                continue
            needed = match[1].lower().replace("_", "-")
            if needed in found or not _installed(needed):
                continue
            found.add(needed)
            waiting.append((needed, frozenset(filter(None, (match[2] or "").split(",")))))
    return found


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except ModuleNotFoundError:
        return False
    return True
