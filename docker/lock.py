"""Writes docker/locks/*.txt: what each image installs, with the hashes of the files on PyPI.

    python docker/lock.py            after a change of constraints.txt or of a pyproject.toml; needs the network and uv
    python docker/lock.py --check    whether the locks agree with them; needs neither

Versions are those of constraints.txt (of services/engine/requirements.txt for the engine), so that an image holds what
the tests ran with. Hashes are of the wheels that the image's Python on Linux may choose, x86-64 and ARM. torch is
apart: PyPI has only its CUDA build for Linux, and `torch-cpu.txt` names the CPU build of PyTorch's own index.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "docker" / "locks"
PYPI = "https://pypi.org/simple"
OURS = {"tuneloom-protos": ROOT / "protos"} | {
    f"tuneloom-{path.parent.name}": path.parent for path in (ROOT / "services").glob("*/pyproject.toml")
}
# What is in each image, of ours.
PARTS: dict[str, tuple[str, ...]] = {
    "gateway": ("tuneloom-gateway",),
    "registry": ("tuneloom-registry",),
    "trainer": ("tuneloom-trainer",),
    "cli": ("tuneloom-cli",),
    "worker": ("tuneloom-registry[build]", "tuneloom-trainer[worker]"),
    "worker-cuda": ("tuneloom-registry[build]", "tuneloom-trainer[worker]"),
    "engine-cuda": ("tuneloom-engine",),
}
NAMES = (*PARTS, "engine", "build")
PYTHON = {"engine-cuda": "3.12"}  # that of vLLM's image
WHEEL_MAKERS = ("hatchling", "editables")
TORCH = "torch"
CUDA = ("cuda-", "nvidia-", "triton")  # what torch's CUDA build brings


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare, offline")
    if not parser.parse_args().check:
        for name in NAMES:
            write(name)
    wrong = [line for name in NAMES for line in disagreements(name)]
    for line in wrong:
        sys.stderr.write(f"{line}; run: python docker/lock.py\n")
    return 1 if wrong else 0


def write(name: str) -> None:
    """Resolves with uv, within the pinned versions, and keeps the hashes of the wheels for the image."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is missing; install it with: pip install uv")
    with tempfile.TemporaryDirectory() as directory:
        lock = Path(directory) / "pylock.toml"
        wanted = Path(directory) / "wanted.txt"
        wanted.write_text("\n".join(f"{line}" for line in needs(name)), "utf-8")
        command = [uv, "pip", "compile", wanted, "-o", lock, "--format", "pylock.toml", "--no-config", "--quiet"]
        command += ["--index-url", PYPI, "--python-version", python(name), "--universal"]
        command += ["--no-deps"] if name == "engine" else ["--constraint", ROOT / "constraints.txt"]
        command += ["--override", _without_torch(directory)] if name != "worker-cuda" else []
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
        subprocess.run(command, check=True, env=clean)
        packages = tomllib.loads(lock.read_text("utf-8"))["packages"]
    text = f"# Made by docker/lock.py from {PYPI}. Installed with --require-hashes --no-deps.\n"
    entries = [_pinned(package, python(name)) for package in packages if _on_linux(package, python(name))]
    (LOCKS / f"{name}.txt").write_text(text + "".join(entries), "utf-8")


def _without_torch(directory: str) -> Path:
    """torch comes from its own lock; what it needs besides CUDA is among what `needs` says."""
    override = Path(directory) / "override.txt"
    override.write_text(f"{TORCH}; sys_platform == 'none'\n", "utf-8")
    return override


def _on_linux(package: dict[str, Any], python: str) -> bool:
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
    linux |= {"python_version": python, "python_full_version": f"{python}.0"}
    return "marker" not in package or Marker(package["marker"]).evaluate(linux)


def _pinned(package: dict[str, Any], python: str) -> str:
    wheels = [wheel for wheel in package.get("wheels", ()) if _fits(_file(wheel), int(python.partition(".")[2]))]
    hashes = sorted({wheel["hashes"]["sha256"] for wheel in wheels})
    if not hashes:
        hashes = [package["sdist"]["hashes"]["sha256"]]
    lines = [f"{package['name']}=={package['version']}", *(f"--hash=sha256:{one}" for one in hashes)]
    return " \\\n    ".join(lines) + "\n"


def _file(wheel: dict[str, Any]) -> str:
    return str(wheel.get("name") or wheel["url"].rpartition("/")[2])


def _fits(wheel: str, minor: int) -> bool:
    """Whether CPython 3.`minor` on a Linux with glibc may install it."""
    pure = {"py3"} | {f"py3{older}" for older in range(minor + 1)}
    stable_abi = {f"cp3{older}" for older in range(2, minor + 1)}
    for tag in parse_wheel_filename(wheel.replace("%2B", "+"))[3]:
        python = tag.interpreter in pure or (tag.interpreter == f"cp3{minor}" and tag.abi in (f"cp3{minor}", "none"))
        stable = tag.abi == "abi3" and tag.interpreter in stable_abi
        linux = re.fullmatch(r"any|(manylinux\w*|linux)_(x86_64|aarch64)", tag.platform) is not None
        if (python or stable) and linux:
            return True
    return False


def python(name: str) -> str:
    """The version of the image's interpreter."""
    return PYTHON.get(name, "3.11")


def needs(name: str) -> list[str]:
    """What is asked for, pinned or not: the requirements of our distributions, theirs of ours included."""
    if name == "build":
        return list(WHEEL_MAKERS)
    if name == "engine":
        lines = (ROOT / "services" / "engine" / "requirements.txt").read_text("utf-8").splitlines()
        return [line for line in lines if line and not line.startswith(("#", f"{TORCH}=="))]
    wanted = sorted({str(found) for part in PARTS[name] for found in _foreign(Requirement(part))})
    return wanted + (["filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy"] if name == "worker" else [])


def _foreign(ours: Requirement) -> Iterator[Requirement]:
    project = tomllib.loads((OURS[ours.name] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    for line in (*project["dependencies"], *(line for extra in ours.extras for line in extras[extra])):
        needed = Requirement(line)
        if needed.name in OURS:
            yield from _foreign(needed)
        else:
            yield needed


def disagreements(name: str) -> list[str]:
    """One line per lock entry that is not what is pinned, or requirement that is not locked."""
    path = LOCKS / f"{name}.txt"
    if not path.exists():
        return [f"{path.name} is missing"]
    locked, pinned = _versions(path), _versions(_pins(name))
    found = [
        f"{path.name} has {package} {version}, {_pins(name).name} has {pinned.get(package, 'none')}"
        for package, version in locked.items()
        if pinned.get(package) != version and not package.startswith(CUDA)
    ]
    asked = {canonicalize_name(Requirement(line).name) for line in needs(name)} - {TORCH}
    return found + [f"{path.name} lacks {package}" for package in sorted(asked - locked.keys())]


def _pins(name: str) -> Path:
    return ROOT / "services" / "engine" / "requirements.txt" if name == "engine" else ROOT / "constraints.txt"


def _versions(path: Path) -> dict[str, str]:
    entries: Sequence[str] = re.findall(r"^([A-Za-z0-9._-]+==[^\s\\]+)", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, _, version in (entry.partition("==") for entry in entries)}


if __name__ == "__main__":
    sys.exit(main())
